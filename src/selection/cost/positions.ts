import type { Tower } from "./layout.ts";
import type { Convolution, Unit } from "./units.ts";

/** Positions that each product of a tower is applied to, per example; undefined where nobody can know. */
export type Positions = {
  /** Of the tower's output. */
  readonly count: number | undefined;
  of(unit: Unit): number;
};

export const samePositions = (count: number): Positions => ({ count, of: () => count });

/** Images, sound: what is not tokens enters through a convolution. */
export const isSignal = ({ path, front, stages }: Tower): boolean => {
  const first = stages[0]?.units[0];
  return (
    front.some(({ convolution }) => convolution !== undefined) ||
    // one that mixes neighbours, channel by channel, is a part of Mamba's layers
    (first?.convolution !== undefined && first.inputs !== first.outputs) ||
    /vision|visual|image|audio/i.test(path)
  );
};

/** Of a tower whose output has `count` positions: before a convolution of stride s there are s (in two dimensions s²) times as many. */
export function positionsBefore({ front, stages }: Tower, count: number): Positions {
  const counts = new Map<Unit, number>();
  let now = count;
  for (const unit of [...front, ...stages.flatMap(({ units }) => units)].reverse()) {
    counts.set(unit, now);
    if (unit.convolution !== undefined && !isShortcut(unit))
      now *= unit.convolution.stride.reduce((a, b) => a * b, 1);
  }
  return { count, of: (unit) => counts.get(unit) ?? count };
}

/** Beside the main path, from the same map. */
const isShortcut = ({ name }: Unit): boolean => /shortcut|downsample/.test(name);

/** Follows the size of the feature map of a square image through a tower's convolutions. */
export function imagePositions({ front, stages }: Tower, imageSize: number): Positions {
  const counts = new Map<Unit, number>();
  let size = imageSize;
  for (const unit of [...front, ...stages.flatMap(({ units }) => units)]) {
    const { convolution } = unit;
    const next = convolution === undefined ? size : sizeAfter(size, convolution);
    counts.set(unit, next * next);
    if (!isShortcut(unit)) size = next;
  }
  return { count: size * size, of: (unit) => counts.get(unit) ?? size * size };
}

function sizeAfter(size: number, { kernel, stride, padding }: Convolution): number {
  const step = stride.at(-1)!;
  if (padding === "same") return Math.ceil(size / step);
  return Math.floor((size + 2 * padding.at(-1)! - kernel.at(-1)!) / step) + 1;
}

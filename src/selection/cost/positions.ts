import type { Convolution, Tower, Unit } from "./layout.ts";

/** Positions that each product of a tower is applied to, per example; undefined where nobody can know. */
export type Positions = {
  /** Of the tower's output. */
  readonly count: number | undefined;
  of(unit: Unit): number;
};

export const samePositions = (count: number): Positions => ({ count, of: () => count });

/** Images, sound: what is not tokens enters through a convolution. */
export const isSignal = ({ path, front, stages }: Tower): boolean =>
  front.some(({ convolution }) => convolution !== undefined) ||
  (stages[0]?.units[0]?.convolution?.kernel.length ?? 1) > 1 ||
  /vision|visual|image|audio/i.test(path);

/** Follows the size of the feature map of a square image through a tower's convolutions. */
export function imagePositions({ front, stages }: Tower, imageSize: number): Positions {
  const counts = new Map<Unit, number>();
  let size = imageSize;
  for (const unit of [...front, ...stages.flatMap(({ units }) => units)]) {
    const { convolution, name } = unit;
    const next = convolution === undefined ? size : sizeAfter(size, convolution);
    counts.set(unit, next * next);
    // beside the main path, from the same map
    if (!/shortcut|downsample/.test(name)) size = next;
    else if (next !== size) counts.set(unit, next * next);
  }
  return { count: size * size, of: (unit) => counts.get(unit) ?? size * size };
}

function sizeAfter(size: number, { kernel, stride, padding }: Convolution): number {
  const step = stride.at(-1)!;
  if (padding === "same") return Math.ceil(size / step);
  return Math.floor((size + 2 * padding.at(-1)! - kernel.at(-1)!) / step) + 1;
}

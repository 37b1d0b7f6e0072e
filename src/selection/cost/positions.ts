import type { Tower } from "./layout.ts";
import type { Convolution, Unit } from "./units.ts";

/** Height and width, in pixels or places. */
export type Size = readonly [height: number, width: number];

/** The maps that a convolution reads and writes. */
export type Maps = { readonly before: Size; readonly after: Size };

/** Positions that each product of a tower is applied to, per example; undefined where nobody can know. */
export type Positions = {
  /** Of the tower's output. */
  readonly count: number | undefined;
  of(unit: Unit): number;
  /** Of a convolution, where the sizes of its maps are known. */
  mapsOf?(unit: Unit): Maps | undefined;
  /** Of the tower's output, where it is a map. */
  readonly map?: Size;
};

export const samePositions = (count: number): Positions => ({ count, of: () => count });

/** Images, sound: what is not tokens enters through a convolution. */
export const isSignal = ({ kind, path, front, stages }: Tower): boolean => {
  const first = stages[0]?.units[0];
  return (
    kind !== "layers" ||
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

/** Follows the size of an image's feature map through a tower's convolutions. Undefined counts where nothing is left of it. */
export function imagePositions({ front, stages }: Tower, image: Size): Positions {
  const maps = new Map<Unit, Maps>();
  let size = image;
  for (const unit of [...front, ...stages.flatMap(({ units }) => units)]) {
    const { convolution } = unit;
    const after = convolution === undefined ? size : sizeAfter(size, convolution);
    maps.set(unit, { before: size, after });
    if (!isShortcut(unit)) size = after;
  }
  if (size.some((length) => length < 1)) return { count: undefined, of: () => 1 };
  return {
    count: area(size),
    map: size,
    of: (unit) => area(maps.get(unit)?.after ?? size),
    mapsOf: (unit) => maps.get(unit),
  };
}

export const area = ([height, width]: Size): number => height * width;

const sizeAfter = ([height, width]: Size, convolution: Convolution): Size => [
  lengthAfter(height, convolution, 0),
  lengthAfter(width, convolution, 1),
];

function lengthAfter(length: number, { kernel, stride, padding }: Convolution, axis: 0 | 1): number {
  const at = (numbers: readonly number[]): number => numbers[axis] ?? numbers.at(-1)!;
  if (padding === "same") return Math.ceil(length / at(stride));
  return Math.floor((length + 2 * at(padding) - at(kernel)) / at(stride)) + 1;
}

/**
 * A convolution's gradients against its forward pass: the kernel's is computed at every offset that the strides leave, the
 * input's without strides at every place of the input.
 */
export function gradientWork(
  { kernel, stride, padding }: Convolution,
  { before, after }: Maps,
): GradientWork {
  if (padding === "same" || kernel.length !== 2) return { kernel: 1, input: 1 };
  const offsets = ([0, 1] as const).map(
    (axis) => before[axis] + 2 * padding[axis]! - stride[axis]! * (after[axis] - 1),
  );
  const isDense = stride.every((step) => step === 1) && padding.every((zeros, axis) => zeros < kernel[axis]!);
  return {
    kernel: (offsets[0]! * offsets[1]!) / (kernel[0]! * kernel[1]!),
    input: isDense ? area(before) / area(after) : 1,
  };
}

export type GradientWork = { readonly kernel: number; readonly input: number };

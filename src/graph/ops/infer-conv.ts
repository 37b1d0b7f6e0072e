import { type Dim, dimAdd, dimDivide, dimEquals, dimMultiply, dimSubtract, formatShape } from "../dim.ts";
import type { Value } from "../value.ts";
import { fail, type Infer, isNegative, requireSameDtype } from "./infer-checks.ts";
import type { ConvAttributes } from "./signatures.ts";

type ConvOp = "Conv" | "ConvTranspose";

function requireImages(op: ConvOp, x: Value, w: Value, attributes: ConvAttributes): void {
  if (x.rank !== 4 || w.rank !== 4)
    fail(op, `needs [batch, channels, height, width] and a kernel of four axes, got ${x} and ${w}.`);
  const { strides, dilations, pads, group } = attributes;
  const whole = (values: readonly number[], least: number): boolean =>
    values.every((value) => Number.isInteger(value) && value >= least);
  if (!whole([...strides, ...dilations, group], 1) || !whole(pads, 0))
    fail(
      op,
      `strides [${strides}], dilations [${dilations}] and group ${group} must be 1 or more, pads [${pads}] 0 or more.`,
    );
}

/** The part of the image that one application of the kernel spans, less 1. */
const span = (w: Value, axis: 0 | 1, { dilations }: ConvAttributes): Dim =>
  dimMultiply(dilations[axis], dimSubtract(w.shape[axis + 2]!, 1));

const padding = ({ pads }: ConvAttributes, axis: 0 | 1): number => pads[axis] + pads[axis + 2]!;

/** ⌊(size + pads - span) / stride⌋ + 1; of a symbolic size only where nothing is rounded. */
function convSize(x: Value, w: Value, axis: 0 | 1, attributes: ConvAttributes): Dim {
  const room = dimSubtract(dimAdd(x.shape[axis + 2]!, padding(attributes, axis)), span(w, axis, attributes));
  const stride = attributes.strides[axis];
  // ⌊(room - 1) / stride⌋ + 1
  if (typeof room === "number") {
    if (room < 1)
      fail("Conv", `the kernel ${formatShape(w.shape)} is larger than the padded ${formatShape(x.shape)}.`);
    return Math.floor((room - 1) / stride) + 1;
  }
  return (
    dimDivide(room, stride) ??
    fail(
      "Conv",
      `the size of ${formatShape(x.shape)} after a stride of ${stride} is not known: give height and width as numbers.`,
    )
  );
}

export const inferConv: Infer<"Conv"> = ([x, w, b], attributes) => {
  requireImages("Conv", x, w, attributes);
  const dtype = requireSameDtype("Conv", x, w, ...(b ? [b] : []));
  const { group } = attributes;
  const [batch, channels] = x.shape as [Dim, Dim];
  const [out, perGroup] = w.shape as [Dim, Dim];
  if (!dimEquals(channels, dimMultiply(perGroup, group)) || dimDivide(out, group) === undefined)
    fail("Conv", `the kernel ${formatShape(w.shape)} does not fit ${channels} channels in ${group} groups.`);
  if (b && !(b.rank === 1 && dimEquals(b.shape[0]!, out)))
    fail("Conv", `the bias ${formatShape(b.shape)} does not fit ${out} channels.`);
  const [height, width] = ([0, 1] as const).map((axis) => convSize(x, w, axis, attributes));
  return { dtype, shape: [batch, out, height!, width!] };
};

export const inferConvTranspose: Infer<"ConvTranspose"> = ([x, w], attributes) => {
  requireImages("ConvTranspose", x, w, attributes);
  const dtype = requireSameDtype("ConvTranspose", x, w);
  const { group, strides, outputPadding } = attributes;
  const [batch, channels] = x.shape as [Dim, Dim];
  const [from, perGroup] = w.shape as [Dim, Dim];
  if (!dimEquals(channels, from) || dimDivide(channels, group) === undefined)
    fail(
      "ConvTranspose",
      `the kernel ${formatShape(w.shape)} does not fit ${channels} channels in ${group} groups.`,
    );
  if (outputPadding.some((extra, axis) => !Number.isInteger(extra) || extra < 0 || extra >= strides[axis]!))
    fail(
      "ConvTranspose",
      `an output padding of [${outputPadding}] must be at least 0 and below the strides [${strides}].`,
    );
  const [height, width] = ([0, 1] as const).map((axis) => {
    const spread = dimMultiply(dimSubtract(x.shape[axis + 2]!, 1), strides[axis]);
    const whole = dimAdd(dimAdd(spread, span(w, axis, attributes)), 1 + outputPadding[axis]);
    const size = dimSubtract(whole, padding(attributes, axis));
    return size === 0 || isNegative(size)
      ? fail("ConvTranspose", `pads [${attributes.pads}] leave nothing of ${formatShape(x.shape)}.`)
      : size;
  });
  return { dtype, shape: [batch, dimMultiply(perGroup, group), height!, width!] };
};

import { type Dim, dimMultiply, dimSubtract } from "../dim.ts";
import * as op from "../ops/build.ts";
import type { ConvAttributes } from "../ops/signatures.ts";
import { constantOf, type Value } from "../value.ts";
import { type RuleFor, zero } from "./rule.ts";

// y[n,o,h,w] = Σ x[n,i,hs+kd-p,…] w[o,i,k,…] + b[o]: dx is the transposed convolution of dy, db = Σ dy.
export const convRule: RuleFor<"Conv"> = ({ inputs: [x, w, b], attributes, dy }) => [
  imageGradient(dy, w, attributes) ??
    op.convTranspose(dy, w, { ...attributes, outputPadding: remainders(x, dy, w, attributes) }),
  kernelGradient(x, dy, w, attributes),
  b ? op.reduceSum(dy, { axes: [0, 2, 3], keepdims: false }) : zero,
];

// The transpose of a convolution: dx is that convolution of dy, and the kernel sees dy where Conv's sees x.
export const convTransposeRule: RuleFor<"ConvTranspose"> = ({ inputs: [x, w], attributes, dy }) => {
  const { strides, pads, dilations, group } = attributes;
  const convolution = { strides, pads, dilations, group };
  return [op.conv(dy, w, convolution), kernelGradient(dy, x, w, convolution)];
};

/**
 * dx[n,i,h,w] = Σ dy[n,o,h-kd+p,…] w[o,i,k,…] without strides is a convolution again, with the kernel turned round: several
 * times as fast as the transposed convolution where every channel has a kernel of its own. Undefined where strides or pads
 * do not allow it.
 */
function imageGradient(dy: Value, w: Value, attributes: ConvAttributes): Value | undefined {
  const { strides, pads, dilations, group } = attributes;
  const [out, perGroup, rows, columns] = w.shape as [Dim, Dim, Dim, Dim];
  if (strides[0] !== 1 || strides[1] !== 1) return undefined;
  if (typeof out !== "number" || typeof rows !== "number" || typeof columns !== "number") return undefined;
  const [down, across] = [dilations[0] * (rows - 1), dilations[1] * (columns - 1)];
  const rest = [down - pads[0], across - pads[1], down - pads[2], across - pads[3]] as const;
  if (rest.some((size) => size < 0)) return undefined;
  const perOutput = out / group;
  const grouped = op.transpose(op.reshape(w, [group, perOutput, perGroup, rows, columns]), [0, 2, 1, 3, 4]);
  const kernels = op.reshape(grouped, [dimMultiply(perGroup, group), perOutput, rows, columns]);
  const turned = reversed(reversed(kernels, 2, rows), 3, columns);
  return op.conv(dy, turned, { pads: rest, dilations, group });
}

/** Elements in the opposite order along an axis of `size`. */
const reversed = (x: Value, axis: number, size: number): Value => {
  const order = Array.from({ length: size }, (_, i) => size - 1 - i);
  return size === 1 ? x : op.gather(x, constantOf(order, [size], "int64"), axis);
};

/** How many rows and columns at the end no window of a strided convolution reached. */
function remainders(x: Value, y: Value, w: Value, attributes: ConvAttributes): [number, number] {
  const { strides, dilations, pads } = attributes;
  const [height, width] = ([0, 1] as const).map((axis) => {
    const spanned = dimMultiply(dilations[axis], dimSubtract(w.shape[axis + 2]!, 1));
    const reached = dimMultiply(dimSubtract(y.shape[axis + 2]!, 1), strides[axis]);
    const size = dimSubtract(x.shape[axis + 2]!, spanned);
    return (dimSubtract(size, reached) as number) + pads[axis] + pads[axis + 2]! - 1;
  });
  return [height!, width!];
}

/**
 * dw[o,i,k,l] = Σ image[n,i,hs+kd-p,…] response[n,o,h,…] over batch and places, which is itself a convolution: of the images
 * with the responses as kernels, stride and dilation changing places and the batch as channels. Groups stay groups.
 * Shapes: image [batch, in, height, width], response [batch, out, …], w and result [out, in / group, rows, columns].
 */
function kernelGradient(image: Value, response: Value, w: Value, attributes: ConvAttributes): Value {
  const { strides, pads, dilations, group } = attributes;
  const [batch, , height, width] = image.shape as [Dim, Dim, Dim, Dim];
  const [, perGroup, rows, columns] = w.shape as [Dim, Dim, Dim, Dim];
  const grouped = op.transpose(op.reshape(image, [batch, group, perGroup, height, width]), [2, 1, 0, 3, 4]);
  const images = op.reshape(grouped, [perGroup, dimMultiply(batch, group), height, width]);
  const kernels = op.transpose(response, [1, 0, 2, 3]);
  const gradient = op.conv(images, kernels, { strides: dilations, pads, dilations: strides, group });
  // Places that no window of a strided convolution reached make it larger than the kernel.
  const cut = op.slice(op.slice(gradient, 2, 0, rows), 3, 0, columns);
  return op.transpose(cut, [1, 0, 2, 3]);
}

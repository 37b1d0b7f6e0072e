import { numel, type Tensor, tensor } from "../tensor/index.ts";
import { seededGenerator } from "../tensor/random.ts";

/** Which dropouts are active in a loss: all of them with `dropout`, but for those of the model itself if `modelDropout` is false. */
export type DropoutOptions = { readonly dropout?: boolean; readonly modelDropout?: boolean };

/** Label of a place that nothing is learned from. */
export const IGNORED = -100n;

/** A mask of tokens as attention reads it. */
export const toMask = ({ shape, data }: Tensor<"int64">): Tensor<"float32"> =>
  tensor("float32", shape, Float32Array.from(data, Number));

/** Random int32 tensors of the given shapes, one after the other: a function of the seed alone, so that a resumed run repeats them. */
export function randomBits(
  shapes: Readonly<Record<string, readonly number[]>>,
  seed: number,
): Record<string, Tensor> {
  const generator = seededGenerator(seed);
  const bits = (shape: readonly number[]): Tensor<"int32"> =>
    tensor(
      "int32",
      shape,
      Int32Array.from({ length: numel(shape) }, () => generator.next()),
    );
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, bits(shape)]));
}

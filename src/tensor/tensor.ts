import { GraftError } from "../errors.ts";
import { type DType, type TypedArrayOf, typedArrays } from "./dtype.ts";

/** Dense values in row-major order. `data.length` equals the product of `shape` (1 for a scalar, `[]`). */
export type Tensor<D extends DType = DType> = {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: TypedArrayOf[D];
};

/** Number of elements of a shape. */
export const numel = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1);

/**
 * A tensor over `data`, which is not copied.
 * @throws GraftError if `data` does not have as many elements as `shape` says.
 */
export function tensor<D extends DType>(
  dtype: D,
  shape: readonly number[],
  data: TypedArrayOf[D],
): Tensor<D> {
  if (data.length !== numel(shape))
    throw new GraftError(
      `A ${dtype} tensor of shape [${shape}] needs ${numel(shape)} elements, got ${data.length}.`,
      {
        code: "tensor-size",
        details: { shape, length: data.length },
      },
    );
  return { dtype, shape, data };
}

/** A tensor of zeros. */
export const zeros = <D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> => ({
  dtype,
  shape,
  data: new typedArrays[dtype](numel(shape)),
});

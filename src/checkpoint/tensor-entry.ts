import { byteSize, type DType, type Tensor, toFloat32, typedArrays } from "../tensor/index.ts";
import type { ByteSource, ReadOptions } from "./byte-source.ts";

/** A tensor by reference: where its bytes are. Nothing is read until `readTensor`. */
export type TensorEntry = {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly source: ByteSource;
  /** From the beginning of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
};

/**
 * Reads the tensor's values, as they are stored (half-precision stays raw bits).
 * @throws CheckpointError if the file cannot be read; the signal's reason if aborted.
 */
export async function readTensor(entry: TensorEntry, options?: ReadOptions): Promise<Tensor> {
  const { dtype, shape, source, byteOffset, byteLength } = entry;
  // Offsets in a file need not be aligned; a buffer of its own always is.
  const bytes = await source.read(byteOffset, byteOffset + byteLength, options);
  const data = new typedArrays[dtype](bytes.buffer, bytes.byteOffset, byteLength / byteSize(dtype));
  return { dtype, shape: [...shape], data };
}

/** Reads the tensor's values, rounded to float32 where they are of another type. @throws as readTensor */
export async function readTensorAsFloat32(
  entry: TensorEntry,
  options?: ReadOptions,
): Promise<Tensor<"float32">> {
  return toFloat32(await readTensor(entry, options));
}

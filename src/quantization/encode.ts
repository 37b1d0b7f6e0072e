import { readStorage } from "../graph/index.ts";
import type { Parameter } from "../nn/index.ts";
import { byteSize, numel, type Tensor, toFloat32, typedArrays } from "../tensor/index.ts";
import type { RowCodes } from "./row-codes.ts";

/** Elements that are float32 in memory at a time. */
const pieceSize = 2 ** 22;

/** A weight in codes. */
export type EncodedWeight = {
  readonly codes: Tensor<"int8"> | Tensor<"uint8">;
  readonly scales: Tensor<"float32">;
  /** ‖W - Ŵ‖ / ‖W‖. */
  readonly error: number;
};

/**
 * Writes a weight [out, in] in codes, some rows at a time.
 * @throws GraphError if it has no values yet, CheckpointError if they cannot be read.
 */
export async function encodeWeight(parameter: Parameter, format: RowCodes): Promise<EncodedWeight> {
  const [out, inner] = parameter.shape as [number, number];
  const codes = new typedArrays[format.codeDtype](numel(format.codeShape(out, inner)));
  const scales = new Float32Array(numel(format.scaleShape(out, inner)));
  let wrong = 0;
  let all = 0;
  let row = 0;
  for await (const rows of piecesOf(parameter)) {
    const count = rows.length / inner;
    const part = scales.subarray((row * scales.length) / out, ((row + count) * scales.length) / out);
    format.scales(rows, inner, part);
    const room = codes.subarray((row * codes.length) / out, ((row + count) * codes.length) / out);
    wrong += format.encode(rows, inner, part, room);
    for (let i = 0; i < rows.length; i++) all += rows[i]! * rows[i]!;
    row += count;
  }
  return {
    codes: {
      dtype: format.codeDtype,
      shape: [...format.codeShape(out, inner)],
      data: codes,
    } as EncodedWeight["codes"],
    scales: { dtype: "float32", shape: [...format.scaleShape(out, inner)], data: scales },
    error: all === 0 ? 0 : Math.sqrt(wrong / all),
  };
}

/** Whole rows of a weight, as float32. */
async function* piecesOf(parameter: Parameter): AsyncGenerator<Float32Array> {
  const { data, storage } = parameter;
  const dtype = data ? "float32" : storage!.dtype;
  for await (const bytes of bytesOf(parameter)) {
    const values = new typedArrays[dtype](bytes.buffer, bytes.byteOffset, bytes.length / byteSize(dtype));
    yield toFloat32({ dtype, shape: [values.length], data: values }).data;
  }
}

/** The bytes of a weight [out, in] as it is stored, some whole rows at a time. */
export async function* bytesOf(parameter: Parameter): AsyncGenerator<Uint8Array> {
  const [out, inner] = parameter.shape as [number, number];
  const { data, storage } = parameter;
  if (!data && !storage) await parameter.materialize(); // says that nothing has been loaded
  const rowBytes = inner * (data ? 4 : byteSize(storage!.dtype));
  const rows = Math.max(1, Math.floor(pieceSize / inner));
  for (let row = 0; row < out; row += rows) {
    const [start, length] = [row * rowBytes, (Math.min(row + rows, out) - row) * rowBytes];
    if (data) yield new Uint8Array(data.data.buffer, data.data.byteOffset + start, length);
    else yield readStorage({ ...storage!, byteOffset: storage!.byteOffset + start, byteLength: length });
  }
}

/** Some columns [out, columns.length] of a weight, as float32. */
export async function columnsOf(
  parameter: Parameter,
  columns: readonly number[],
): Promise<Tensor<"float32">> {
  const [out, inner] = parameter.shape as [number, number];
  const data = new Float32Array(out * columns.length);
  let at = 0;
  for await (const rows of piecesOf(parameter))
    for (let start = 0; start < rows.length; start += inner)
      for (const column of columns) data[at++] = rows[start + column]!;
  return { dtype: "float32", shape: [out, columns.length], data };
}

import { readStorage } from "../graph/index.ts";
import type { Parameter } from "../nn/index.ts";
import {
  bfloat16ArrayToFloat32,
  byteSize,
  type DType,
  float16ArrayToFloat32,
  numel,
  type Tensor,
  toFloat32,
  typedArrays,
} from "../tensor/index.ts";
import { ahead } from "./ahead.ts";
import type { RowCodes } from "./row-codes.ts";

/** Elements that are read at a time. */
const pieceSize = 2 ** 22;

/** Elements that are float32 at a time: few enough to stay in a processor's cache. */
const blockSize = 2 ** 14;

/** A weight in codes. */
export type EncodedWeight = {
  readonly codes: Tensor<"int8"> | Tensor<"uint8">;
  readonly scales: Tensor<"float32">;
  /** ‖W - Ŵ‖ / ‖W‖. */
  readonly error: number;
};

/**
 * Writes a loaded weight [out, in] in codes, some rows at a time.
 * @throws CheckpointError if its values cannot be read.
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
    all += sumOfSquares(rows);
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

function sumOfSquares(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return sum;
}

/** Some whole rows of a weight at a time, as float32; they are good until the next ones. */
async function* piecesOf(parameter: Parameter): AsyncGenerator<Float32Array> {
  const inner = parameter.shape[1]!;
  const { data, storage } = parameter;
  const dtype = data ? "float32" : storage!.dtype;
  const length = Math.max(1, Math.floor(blockSize / inner)) * inner;
  const room = new Float32Array(length);
  for await (const bytes of ahead(readsOf(parameter))) {
    const values = new typedArrays[dtype](bytes.buffer, bytes.byteOffset, bytes.length / byteSize(dtype));
    for (let start = 0; start < values.length; start += length)
      yield float32Values(dtype, values.subarray(start, start + length), room);
  }
}

/** In `room`, if these are half floats. */
function float32Values(dtype: DType, values: Tensor["data"], room: Float32Array<ArrayBuffer>): Float32Array {
  if (dtype === "bfloat16" || dtype === "float16") {
    const widen = dtype === "bfloat16" ? bfloat16ArrayToFloat32 : float16ArrayToFloat32;
    return widen(values as Uint16Array, room.subarray(0, values.length));
  }
  return toFloat32({ dtype, shape: [values.length], data: values } as Tensor).data;
}

/** Reads of the bytes of a loaded weight [out, in] as it is stored, some whole rows each. */
export function* readsOf(parameter: Parameter): Generator<() => Promise<Uint8Array>> {
  const [out, inner] = parameter.shape as [number, number];
  const { data, storage } = parameter;
  const rowBytes = inner * (data ? 4 : byteSize(storage!.dtype));
  const rows = Math.max(1, Math.floor(pieceSize / inner));
  for (let row = 0; row < out; row += rows) {
    const [start, length] = [row * rowBytes, (Math.min(row + rows, out) - row) * rowBytes];
    if (data) yield async () => new Uint8Array(data.data.buffer, data.data.byteOffset + start, length);
    else
      yield () => readStorage({ ...storage!, byteOffset: storage!.byteOffset + start, byteLength: length });
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

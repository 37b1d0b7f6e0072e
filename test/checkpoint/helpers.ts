import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type ByteSource, bytesSource, type FileStore, readSafetensors } from "../../src/checkpoint/index.ts";
import { CheckpointError } from "../../src/errors.ts";
import { byteSize, type DType, numel, type Tensor, typedArrays } from "../../src/tensor/index.ts";

/** A safetensors file with this header (text or JSON) and this many zero bytes, or these bytes, of data. */
export function fileOf(header: string | object | Uint8Array, data: number | Uint8Array = 0): Uint8Array {
  const text =
    header instanceof Uint8Array
      ? header
      : new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + text.length + body.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  file.set(body, 8 + text.length);
  return file;
}

export const readBytes = (file: Uint8Array, name = "x.safetensors") =>
  readSafetensors(bytesSource(name, file));

/** The CheckpointError that the promise rejects with; anything else is a failure. */
export async function failure(promise: Promise<unknown>): Promise<CheckpointError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof CheckpointError) return error;
    throw error;
  }
  throw new Error("expected a CheckpointError");
}

/** A store over files in memory that counts reads. */
export function memoryStore(files: Record<string, Uint8Array | string>, name = "model"): FileStore {
  const sources = new Map<string, ByteSource>(
    Object.entries(files).map(([file, contents]) => [
      file,
      bytesSource(file, typeof contents === "string" ? new TextEncoder().encode(contents) : contents),
    ]),
  );
  return {
    name,
    open: async (file) => sources.get(file),
    list: async () => [...sources.keys()],
  };
}

/** A directory that is gone when the test is over. */
export async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "graft-test-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A tensor over given bytes. */
export function tensorOf(dtype: DType, shape: readonly number[], bytes: Uint8Array): Tensor {
  const buffer = new Uint8Array(numel(shape) * byteSize(dtype));
  buffer.set(bytes.subarray(0, buffer.length));
  return { dtype, shape, data: new typedArrays[dtype](buffer.buffer) };
}

export const f32 = (...values: number[]): Tensor<"float32"> => ({
  dtype: "float32",
  shape: [values.length],
  data: Float32Array.from(values),
});

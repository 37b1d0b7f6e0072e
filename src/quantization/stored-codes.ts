import type { WeightStorage } from "../graph/index.ts";
import type { Tensor } from "../tensor/index.ts";
import type { EncodedWeight } from "./encode.ts";

/** A weight's codes and scales where products find them, and how far they are from the weight: ‖W - Ŵ‖ / ‖W‖. */
export type StoredWeight = {
  readonly codes: WeightStorage;
  readonly scales: WeightStorage;
  readonly error: number;
};

/** Stores weights as they are encoded, and gives them all back by name. */
export type CodeStore = (
  encoded: AsyncIterable<readonly [name: string, weight: EncodedWeight]>,
) => Promise<ReadonlyMap<string, StoredWeight>>;

/** Keeps codes in memory: where there is no file system. */
export const inMemory: CodeStore = async (encoded) => {
  const stored = new Map<string, StoredWeight>();
  for await (const [name, { codes, scales, error }] of encoded)
    stored.set(name, {
      codes: storageOf(`${name}.codes`, codes),
      scales: storageOf(`${name}.scales`, scales),
      error,
    });
  return stored;
};

function storageOf(name: string, { dtype, shape, data }: Tensor): WeightStorage {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return {
    name,
    dtype,
    shape,
    source: { read: async (start, end) => bytes.subarray(start, end) },
    byteOffset: 0,
    byteLength: bytes.length,
  };
}

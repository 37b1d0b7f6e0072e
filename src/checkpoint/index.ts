/**
 * Model files without Python: safetensors (single or sharded) and JSON, from a local path, a URL or a Blob.
 * Nothing here needs Node until a local path is opened. To write files, see `graftjs/node`.
 *
 *     const checkpoint = await readCheckpoint(await openStore("path/to/model"));
 *     const weight = await readTensorAsFloat32(checkpoint.tensors.get("model.norm.weight")!);
 */
export { blobStore } from "./blob-store.ts";
export { type ByteSource, blobSource, bytesSource, type FileStore, type ReadOptions } from "./byte-source.ts";
export type { HttpOptions } from "./http-source.ts";
export { type HubOptions, hubStore } from "./hub/hub-store.ts";
export { readJson, readJsonIfPresent } from "./json.ts";
export { openStore } from "./open-store.ts";
export { readCheckpoint } from "./read-checkpoint.ts";
export { type Checkpoint, readSafetensors } from "./safetensors.ts";
export {
  type Metadata,
  safetensorsChunks,
  serializeSafetensors,
  type Tensors,
  type TensorsOrEntries,
} from "./serialize.ts";
export { readTensor, readTensorAsFloat32, type TensorEntry } from "./tensor-entry.ts";
export { urlStore } from "./url-store.ts";

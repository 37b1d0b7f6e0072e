import { CheckpointError } from "../errors.ts";
import type { FileStore, ReadOptions } from "./byte-source.ts";
import { isPickleName, pickleError } from "./foreign.ts";
import { missingFile } from "./json.ts";
import { type Checkpoint, readSafetensors } from "./safetensors.ts";
import { readShards } from "./shards.ts";

const singleFile = "model.safetensors";
const shardIndex = "model.safetensors.index.json";
const indexSuffix = ".safetensors.index.json";

/**
 * Reads the headers of a model's weights: the file or shard index that the location names, or else, as
 * transformers does, `model.safetensors` or the shards of `model.safetensors.index.json`. No tensor is read.
 * @throws CheckpointError if there are no weights, or they are pickles, damaged or incomplete.
 */
export async function readCheckpoint(store: FileStore, options?: ReadOptions): Promise<Checkpoint> {
  for (const file of store.weights === undefined ? [singleFile, shardIndex] : [store.weights]) {
    if (isPickleName(file)) throw pickleError([file], store.name);
    const source = await store.open(file, options);
    if (source === undefined) continue;
    return file.endsWith(indexSuffix) ? readShards(store, file, options) : readSafetensors(source, options);
  }
  throw store.weights === undefined
    ? await noWeights(store, options)
    : await missingFile(store, store.weights);
}

async function noWeights(store: FileStore, options?: ReadOptions): Promise<CheckpointError> {
  const files = await knownFiles(store, options);
  const pickles = files.filter(isPickleName);
  const others = files.filter((file) => file.endsWith(".safetensors") || file.endsWith(indexSuffix));
  if (pickles.length > 0 && others.length === 0) return pickleError(pickles.slice(0, 8), store.name);
  const looked = `looked for ${singleFile} and ${shardIndex}`;
  const hasConfig = files.includes("config.json") ? " beside config.json" : "";
  const [remedy, code] = files.includes("adapter_config.json")
    ? ["This is an adapter, not a model: load its base model, and then the adapter onto it.", "adapter"]
    : others.length > 0
      ? [`Name the file to read instead: ${others.slice(0, 8).join(", ")}.`, "no-weights"]
      : ["Download the weights into the same place, or check the location.", "no-weights"];
  return new CheckpointError(`${store.name}: there are no weights${hasConfig} (${looked}). ${remedy}`, {
    code,
    details: { store: store.name, lookedFor: [singleFile, shardIndex], found: [...pickles, ...others] },
  });
}

/** The files of the store; where it cannot list them, those of a few usual names that exist. */
async function knownFiles(store: FileStore, options?: ReadOptions): Promise<string[]> {
  if (store.list !== undefined) return store.list();
  const usual = ["config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_config.json"];
  const found = await Promise.all(usual.map((file) => store.open(file, options)));
  return usual.filter((_, i) => found[i] !== undefined);
}

import { CheckpointError } from "../errors.ts";
import type { ByteSource, FileStore, ReadOptions } from "./byte-source.ts";
import { unsafeFileName } from "./file-name.ts";
import { isPickleName, pickleError } from "./foreign.ts";
import { readJson } from "./json.ts";
import { Problems, quote } from "./problems.ts";
import { type Checkpoint, readSafetensors } from "./safetensors.ts";
import type { TensorEntry } from "./tensor-entry.ts";

/** Shards opened at a time: enough to hide the latency of a server, few enough to be polite to it. */
const concurrency = 8;

/**
 * Reads a checkpoint split over several files, described by `index`, e.g. model.safetensors.index.json. Like
 * transformers it takes every tensor of the shards; unlike it, it checks the index against them.
 * @throws CheckpointError naming all missing shards, or all tensors that the index puts where they are not.
 */
export async function readShards(
  store: FileStore,
  index: string,
  options?: ReadOptions,
): Promise<Checkpoint> {
  const weightMap = parseIndex(index, await readJson(store, index, options));
  const files = [...weightMap.files].sort();
  const sources = await openShards(store, index, files, options);
  const shards = await readHeaders(sources, options);
  const tensors = mergeShards(index, weightMap, new Map(files.map((file, i) => [file, shards[i]!])));
  const metadata = Object.fromEntries(
    shards.toReversed().flatMap(({ metadata }) => Object.entries(metadata)),
  );
  return { name: store.name, tensors, metadata };
}

/** An index of 100,000 tensors is kept as JSON.parse made it, which is faster than a map. */
type WeightMap = { readonly fileOf: Readonly<Record<string, string>>; readonly files: ReadonlySet<string> };

function parseIndex(index: string, json: unknown): WeightMap {
  const weightMap = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap))
    throw new CheckpointError(
      `${index}: "weight_map", an object that gives the file of each tensor, is missing. ` +
        "Save the model again, or download the index again.",
      { code: "invalid-index", details: { file: index } },
    );
  const problems = new Problems();
  const checked = new Set<string>();
  const fileOf = weightMap as Record<string, string>;
  let last: unknown;
  for (const tensor of Object.keys(fileOf)) {
    const file: unknown = fileOf[tensor];
    if (file === last) continue;
    if (typeof file === "string") last = file; // checked once for all that follow
    if (typeof file !== "string")
      problems.add({
        code: "invalid-index",
        tensor,
        message: `tensor ${quote(tensor)} has ${JSON.stringify(file)} where the name of a file should be`,
      });
    else if (checked.size < checked.add(file).size && unsafeFileName(file) !== undefined)
      problems.add({
        code: "unsafe-file-name",
        tensor,
        shard: file,
        message: `the shard name ${quote(file)} ${unsafeFileName(file)}; shards lie beside the index`,
      });
  }
  problems.throwIfAny({
    file: index,
    code: "invalid-index",
    remedy: "Do not use this model unless you trust where it comes from; download the index again.",
  });
  const pickles = [...checked].filter(isPickleName);
  if (pickles.length > 0) throw pickleError(pickles.slice(0, 8), index);
  return { fileOf, files: checked };
}

async function openShards(
  store: FileStore,
  index: string,
  files: readonly string[],
  options?: ReadOptions,
): Promise<ByteSource[]> {
  const sources = await mapLimited(files, (file) => store.open(file, options));
  const missing = files.filter((_, i) => sources[i] === undefined);
  if (missing.length === 0) return sources as ByteSource[];
  throw new CheckpointError(
    `${store.name}: ${missing.length} of the ${files.length} files that ${index} names are missing: ` +
      `${missing.join(", ")}. Download them into the same directory.`,
    { code: "missing-shards", details: { store: store.name, index, missing } },
  );
}

/** Reads all headers; several damaged shards are reported together, so that they can be replaced at once. */
async function readHeaders(sources: readonly ByteSource[], options?: ReadOptions): Promise<Checkpoint[]> {
  const shards: Checkpoint[] = [];
  const errors: CheckpointError[] = [];
  const outcomes = await mapLimited(sources, (source) =>
    readSafetensors(source, options).catch((error: unknown) => {
      if (error instanceof CheckpointError) return error;
      throw error;
    }),
  );
  for (const outcome of outcomes) {
    if (outcome instanceof CheckpointError) errors.push(outcome);
    else shards.push(outcome);
  }
  if (errors.length === 0) return shards;
  if (errors.length === 1) throw errors[0]!;
  throw new CheckpointError(
    `${errors.length} of ${sources.length} shards cannot be used:\n${errors.map(({ message }) => message).join("\n")}`,
    {
      code: "invalid-shards",
      details: { errors: errors.map(({ code, details }) => ({ code, ...details })) },
    },
  );
}

function mergeShards(
  index: string,
  { fileOf }: WeightMap,
  shards: ReadonlyMap<string, Checkpoint>,
): Map<string, TensorEntry> {
  const problems = new Problems();
  const tensors = new Map<string, TensorEntry>();
  const sources = new Map<ByteSource, string>();
  for (const [file, shard] of shards)
    for (const [name, entry] of shard.tensors) {
      const { size } = tensors;
      if (size < tensors.set(name, entry).size) {
        if (!sources.has(entry.source)) sources.set(entry.source, file);
        continue;
      }
      const other = [...shards].find(([, { tensors: before }]) => before.has(name))![0];
      problems.add({
        code: "duplicate-tensor",
        tensor: name,
        shards: [other, file],
        message: `tensor ${quote(name)} is in both ${other} and ${file}`,
      });
    }
  for (const name of Object.keys(fileOf)) {
    const file = fileOf[name]!;
    const found = tensors.get(name);
    const actual = found && sources.get(found.source);
    if (actual === file || shards.get(file)!.tensors.has(name)) continue;
    problems.add({
      code: "missing-tensor",
      tensor: name,
      shard: file,
      message:
        `tensor ${quote(name)} should be in ${file} but is ` +
        (actual === undefined ? "in none of the shards" : `in ${actual}`),
    });
  }
  problems.throwIfAny({
    file: index,
    code: "inconsistent-shards",
    remedy:
      "The index and the shards come from different versions or an incomplete save: download all of them again.",
  });
  return tensors;
}

/** Maps with at most `concurrency` calls in flight; results in order; the first failure wins. */
async function mapLimited<T, R>(items: readonly T[], map: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = new Array(items.length);
  let next = 0;
  const work = async () => {
    while (next < items.length) {
      const i = next++;
      results[i] = await map(items[i]!);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  return results;
}

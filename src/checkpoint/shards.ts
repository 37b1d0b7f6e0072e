import { CheckpointError } from "../errors.ts";
import type { ByteSource, FileStore, ReadOptions } from "./byte-source.ts";
import { unsafeFileName } from "./file-name.ts";
import { isPickleName, pickleError } from "./foreign.ts";
import { readJsonWith } from "./json.ts";
import { Problems, quote } from "./problems.ts";
import { type Checkpoint, readEntries } from "./safetensors.ts";
import type { TensorEntry } from "./tensor-entry.ts";
import { plainWeightMap, type WeightMapRows } from "./weight-map.ts";

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
  const parse = (text: string): unknown => {
    const rows = plainWeightMap(text);
    return rows === undefined ? JSON.parse(text) : new PlainIndex(rows);
  };
  const weightMap = checkIndex(index, rowsOf(index, await readJsonWith(parse, store, index, options)));
  const files = [...weightMap.shards].sort();
  const sources = await openShards(store, index, files, options);
  const shards = await readHeaders(sources, options);
  const tensors = mergeShards(index, weightMap, new Map(files.map((file, i) => [file, shards[i]!])));
  const metadata = Object.fromEntries(
    shards.toReversed().flatMap(({ metadata }) => Object.entries(metadata)),
  );
  return { name: store.name, tensors, metadata };
}

class PlainIndex {
  readonly rows: WeightMapRows;

  constructor(rows: WeightMapRows) {
    this.rows = rows;
  }
}

function rowsOf(index: string, json: unknown): { names: readonly string[]; files: readonly unknown[] } {
  if (json instanceof PlainIndex) return json.rows;
  const weightMap = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap))
    throw new CheckpointError(
      `${index}: "weight_map", an object that gives the file of each tensor, is missing. ` +
        "Save the model again, or download the index again.",
      { code: "invalid-index", details: { file: index } },
    );
  return { names: Object.keys(weightMap), files: Object.values(weightMap) };
}

type WeightMap = WeightMapRows & { readonly shards: ReadonlySet<string> };

function checkIndex(
  index: string,
  { names, files }: { names: readonly string[]; files: readonly unknown[] },
): WeightMap {
  const problems = new Problems();
  const checked = new Set<string>();
  let last: unknown;
  for (let i = 0; i < names.length; i++) {
    const tensor = names[i]!;
    const file = files[i];
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
  return { names, files: files as readonly string[], shards: checked };
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

type Shard = Awaited<ReturnType<typeof readEntries>>;

/** Reads all headers; several damaged shards are reported together, so that they can be replaced at once. */
async function readHeaders(sources: readonly ByteSource[], options?: ReadOptions): Promise<Shard[]> {
  const shards: Shard[] = [];
  const errors: CheckpointError[] = [];
  const outcomes = await mapLimited(sources, (source) =>
    readEntries(source, options).catch((error: unknown) => {
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
  weightMap: WeightMap,
  shards: ReadonlyMap<string, Shard>,
): Map<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  const fileOf = new Map<ByteSource, string>();
  let count = 0;
  for (const [file, { entries }] of shards) {
    count += entries.length;
    for (const entry of entries) tensors.set(entry.name, entry);
    if (entries.length > 0) fileOf.set(entries[0]!.source, file);
  }
  const { names, files } = weightMap;
  const isInPlace = (name: string, i: number): boolean => {
    const source = tensors.get(name)?.source;
    return source !== undefined && fileOf.get(source) === files[i];
  };
  if (tensors.size < count || !names.every(isInPlace)) refuseInconsistent(index, weightMap, shards);
  return tensors;
}

/** @throws CheckpointError with all tensors that are in several shards, or not where the index puts them. */
function refuseInconsistent(
  index: string,
  { names, files }: WeightMapRows,
  shards: ReadonlyMap<string, Shard>,
): void {
  const problems = new Problems();
  const filesOf = new Map<string, string[]>();
  for (const [file, { entries }] of shards)
    for (const { name } of entries) {
      const before = filesOf.get(name);
      if (before === undefined) {
        filesOf.set(name, [file]);
        continue;
      }
      problems.add({
        code: "duplicate-tensor",
        tensor: name,
        shards: [before[0], file],
        message: `tensor ${quote(name)} is in both ${before[0]} and ${file}`,
      });
      before.push(file);
    }
  // Of a name that is given twice, the last file counts.
  for (const [name, file] of new Map(names.map((name, i) => [name, files[i]!]))) {
    const actual = filesOf.get(name);
    if (actual?.includes(file)) continue;
    problems.add({
      code: "missing-tensor",
      tensor: name,
      shard: file,
      message:
        `tensor ${quote(name)} should be in ${file} but is ` +
        (actual === undefined ? "in none of the shards" : `in ${actual.at(-1)}`),
    });
  }
  problems.throwIfAny({
    file: index,
    code: "inconsistent-shards",
    remedy:
      "The index and the shards come from different versions or an incomplete save: download all of them again.",
  });
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

import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { readSafetensors } from "../checkpoint/index.ts";
import { fileSource, writeFileAtomic, writeSafetensors } from "../checkpoint/node.ts";
import type { WeightStorage } from "../graph/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { ahead } from "./ahead.ts";
import { readsOf } from "./encode.ts";
import { hold, makeRoom } from "./room/node.ts";
import type { CodeStore, StoredWeight } from "./stored-codes.ts";

/** A file of the cache has about as many bytes; one is written while codes for the next are made. */
const fileSize = 2 ** 25;

/** Counted up when the codes of a weight change. */
const VERSION = 2;

const INDEX = "index.json";

/** What a cached directory holds; written last, so that a directory with it is complete. */
type Index = { readonly files: readonly string[]; readonly errors: Readonly<Record<string, number>> };

/** Where codes are cached unless somebody says otherwise: `$XDG_CACHE_HOME/graft/quantized`, or below `~/.cache`. */
export const defaultCacheDirectory = (): string =>
  join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "graft", "quantized");

/** What codes may take altogether: `$GRAFT_QUANTIZED_CACHE_BYTES`, or 10 GB. */
function defaultMaxBytes(): number {
  const bytes = Number.parseFloat(process.env["GRAFT_QUANTIZED_CACHE_BYTES"] ?? "");
  return bytes >= 0 ? bytes : 10e9;
}

type CacheOptions = { readonly directory?: string | undefined; readonly maxBytes?: number | undefined };

/**
 * Keeps codes in safetensors files below a directory, for ONNX Runtime to map, under a name made of the weights' contents: a
 * second run finds them there. Where all codes take more than `maxBytes`, the least recently used are removed that no process uses.
 * @throws CheckpointError if weights cannot be read or files not be written.
 */
export async function cachedCodes(
  parameters: ReadonlyMap<string, Parameter>,
  format: string,
  { directory: cache = defaultCacheDirectory(), maxBytes = defaultMaxBytes() }: CacheOptions = {},
): Promise<CodeStore> {
  const directory = join(cache, await contentKey(parameters, format));
  return async (encoded) => {
    await hold(directory);
    const cached = await readCached(directory);
    if (cached) return cached;
    await mkdir(directory, { recursive: true });
    const files: string[] = [];
    const errors: Record<string, number> = {};
    let tensors = new Map<string, Tensor>();
    let bytes = 0;
    let writing = Promise.resolve();
    const write = async (): Promise<void> => {
      await writing;
      const file = `codes-${files.length}.safetensors`;
      files.push(file);
      writing = writeSafetensors(join(directory, file), tensors);
      writing.catch(() => undefined); // thrown by whoever waits for it
      tensors = new Map();
      bytes = 0;
    };
    for await (const [name, { codes, scales, error }] of encoded) {
      tensors.set(`${name}.codes`, codes).set(`${name}.scales`, scales);
      errors[name] = error;
      bytes += codes.data.byteLength + scales.data.byteLength;
      if (bytes >= fileSize) await write();
    }
    if (tensors.size > 0) await write();
    await writing;
    await writeFileAtomic(join(directory, INDEX), JSON.stringify({ files, errors } satisfies Index));
    await makeRoom(cache, maxBytes);
    return (await readCached(directory))!;
  };
}

async function readCached(directory: string): Promise<Map<string, StoredWeight> | undefined> {
  const text = await readFile(join(directory, INDEX), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const { files, errors } = JSON.parse(text) as Index;
  const tensors = new Map<string, WeightStorage>();
  for (const file of files)
    for (const [name, entry] of (await readSafetensors(await fileSource(join(directory, file)))).tensors)
      tensors.set(name, entry);
  return new Map(
    Object.entries(errors).map(([name, error]) => [
      name,
      { codes: tensors.get(`${name}.codes`)!, scales: tensors.get(`${name}.scales`)!, error },
    ]),
  );
}

/** A hash of the weights as they are stored, their names and the format of the codes. */
async function contentKey(parameters: ReadonlyMap<string, Parameter>, format: string): Promise<string> {
  const hash = createHash("sha256").update(`graft ${VERSION} ${format}`);
  for (const [name, { data, storage, shape }] of parameters)
    hash.update(`\n${name} ${data ? "float32" : storage?.dtype} ${shape}`);
  const reads = [...parameters.values()].flatMap((parameter) => [...readsOf(parameter)]);
  for await (const piece of ahead(reads)) hash.update(piece);
  return hash.digest("hex").slice(0, 32);
}

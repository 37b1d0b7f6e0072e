import { emit, numberedPaths, reachable, type Value, type WeightStorage } from "../../graph/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { version } from "../version.ts";
import type { KeptDType } from "./types.ts";

/** SHA-256 as 64 hexadecimal digits. Web Crypto is in Node and, on pages served securely, in browsers. */
async function sha256(bytes: Uint8Array): Promise<string> {
  // Web Crypto takes no memory that other threads may change meanwhile.
  const own = bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : bytes.slice();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", own));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Of JSON, so that no two lists of names and numbers look alike. */
const digestOf = (facts: unknown): Promise<string> => sha256(new TextEncoder().encode(JSON.stringify(facts)));

/**
 * Names an example by what the frozen part reads of it: a hash of every tensor's name, dtype, shape and contents, in any
 * order. Give the example's own values, without the padding of a batch. `scope` is hashed along: what else the kept values
 * depend on, such as which of several prefix programs computes them.
 */
export async function exampleKey(feeds: Readonly<Record<string, Tensor>>, scope = ""): Promise<string> {
  const names = Object.keys(feeds).sort();
  const facts = names.map(async (name) => {
    const { dtype, shape, data } = feeds[name]!;
    return [name, dtype, shape, await sha256(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
  });
  return digestOf([scope, await Promise.all(facts)]);
}

/** Names what belongs to several things by their names. */
export const combinedKey = (...names: readonly string[]): Promise<string> => digestOf(names);

/** Names a graph by its operators and constants, and by where its weights lie: within a process that is what computes the values. */
export const graphKey = (outputs: Readonly<Record<string, Value>>): Promise<string> =>
  sha256(emit(outputs).model);

/** Digests of weights, by where they lie; good as long as the files are taken not to change. */
export type WeightDigests = Map<unknown, Promise<string>>;

export type PrefixKeyOptions = {
  /** How the values are stored. */
  readonly dtype: KeptDType;
  /** What runs the program: package, version and device, e.g. "onnxruntime-node 1.30.0 cpu". */
  readonly engine: string;
  /** Parameters that are fed and yet stay as they are, by the inputs' names; only those that the prefix reads count. */
  readonly fixed?: Readonly<Record<string, Tensor>>;
  /** Version of Graft. Default: this one. */
  readonly graft?: string;
  /** Share it among calls for several prefixes of one model, and its weights are read once. */
  readonly digests?: WeightDigests;
};

/**
 * Names a prefix by all that its values depend on besides the example: the emitted program (structure, constants, dtypes,
 * names of what is kept), the contents of every weight it reads and of every fed parameter, the versions of what computes it, and the dtype it is
 * stored in. Where the files lie and what they are called does not matter.
 */
export async function prefixKey(
  outputs: Readonly<Record<string, Value>>,
  { dtype, engine, fixed = {}, graft = version, digests = new Map() }: PrefixKeyOptions,
): Promise<string> {
  const { model, inputs } = emit(outputs, { realPath: numberedPaths() });
  const hasher = new WeightHasher(digests);
  const weights = reachable(Object.values(outputs)).flatMap(({ source }) =>
    source.kind === "weight" ? [hasher.digest(source.storage)] : [],
  );
  const fed = inputs.flatMap(({ name }) =>
    Object.hasOwn(fixed, name) ? [[name, fixed[name]!] as const] : [],
  );
  const hashes = [sha256(model), exampleKey(Object.fromEntries(fed)), ...weights];
  return digestOf([graft, engine, dtype, ...(await Promise.all(hashes))]);
}

/** Bytes hashed at once. */
const CHUNK = 8 * 2 ** 20;
/** Chunks read ahead or hashed at the same time; Web Crypto hashes in threads of its own. */
const AT_ONCE = 4;

/** Reads and hashes weights, a bounded number of chunks at a time. */
class WeightHasher {
  private readonly digests: WeightDigests;
  private readonly slots: Promise<unknown>[] = Array.from({ length: AT_ONCE }, () => Promise.resolve());
  private turn = 0;

  constructor(digests: WeightDigests) {
    this.digests = digests;
  }

  /** Of a weight's bytes: the digest of the digests of its chunks. */
  digest(storage: WeightStorage): Promise<string> {
    const { source, byteOffset, byteLength } = storage;
    const place = source.path === undefined ? storage : `${byteOffset} ${byteLength} ${source.path}`;
    const known = this.digests.get(place) ?? this.chunks(storage);
    this.digests.set(place, known);
    return known;
  }

  private async chunks({ source, byteOffset, byteLength }: WeightStorage): Promise<string> {
    const end = byteOffset + byteLength;
    const chunks: Promise<string>[] = [];
    for (let start = byteOffset; start < end; start += CHUNK)
      chunks.push(this.queue(async () => sha256(await source.read(start, Math.min(end, start + CHUNK)))));
    return digestOf([byteLength, await Promise.all(chunks)]);
  }

  /** Runs `work` after what was queued AT_ONCE before it. */
  private queue<T>(work: () => Promise<T>): Promise<T> {
    const slot = this.turn++ % AT_ONCE;
    const result = this.slots[slot]!.then(work);
    this.slots[slot] = result.catch(() => undefined); // reported by the result
    return result;
  }
}

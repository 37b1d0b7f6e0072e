import { randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import { freemem } from "node:os";
import { dirname, join, resolve } from "node:path";
import { makeDirectory } from "../../checkpoint/node.ts";
import { crc32c } from "../crc32c.ts";
import { decodeExample, encodeExample, leastBytes } from "./encoding.ts";
import { type Entry, INDEX_START, indexLine, parseIndex } from "./index-lines.ts";
import type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "./types.ts";

export type DiskStoreOptions = {
  /** Folder of the cache; the store makes one of its own in it, called `key`. */
  readonly directory: string;
  /** What the examples were computed with: see `prefixKey`. */
  readonly key: string;
  /** Room for the files, in bytes, those of earlier runs included. */
  readonly maxBytes: number;
  /** Default "float32". */
  readonly dtype?: KeptDType;
  /** Space on the disk that the store leaves to others, such as checkpoints, in bytes. Default 1 GiB. */
  readonly minFreeBytes?: number;
  /** Told once in a sentence if the disk cannot be read or written; the store then does without. */
  readonly onWarning?: (message: string) => void;
  /** The system's calls, to be replaced where their failures are tested. */
  readonly system?: Pick<typeof fs, "open" | "statfs">;
};

/** Bytes written between two looks at the free space, of which so much more may be taken. */
const SPACE_CHECK = 64 * 2 ** 20;

/** Where an example lies, and the open file. */
type Place = Entry & { readonly file: fs.FileHandle };

/** The files that this process writes. */
type Writing = { readonly data: fs.FileHandle; readonly index: fs.FileHandle; dataSize: number };

/**
 * Examples in a folder, for later epochs and later runs.
 *
 * Every process that has something to add makes two files of its own, `<random>.data` and `<random>.index`, and reads those
 * that are there when it opens the store: nobody writes to a file of another, so any number may run at once. An example's
 * bytes are written before the line of the index that names them, with a checksum over each. A process that is killed leaves
 * at worst bytes that no line names or a line without its end; neither is read. Nothing is flushed to the disk: what a
 * power failure loses does not pass its checksum, and is computed again.
 */
export class DiskStore implements PrefixStore {
  private readonly folder: string;
  private readonly options: Required<Omit<DiskStoreOptions, "directory" | "key">>;
  /** Good and bad are told apart when they are read, so an example may have several places. */
  private readonly places = new Map<string, Place[]>();
  private readonly handles: fs.FileHandle[] = [];
  private readonly reads = new Set<Promise<unknown>>();
  /** Puts follow one another: the next one's place is known when the one before has ended. */
  private writes: Promise<unknown> = Promise.resolve();
  private writing: Writing | undefined;
  /** No put will be tried any more. */
  private failed = false;
  private warned = false;
  private closing: Promise<void> | undefined;
  /** The topmost folder that was made. */
  private created: string | undefined;
  /** Of all files. */
  private bytes = 0;
  private unchecked = Number.POSITIVE_INFINITY;
  private hits = 0;
  private misses = 0;
  private refused = 0;
  private damaged = 0;

  private constructor({
    directory,
    key,
    maxBytes,
    dtype = "float32",
    minFreeBytes = 2 ** 30,
    onWarning = () => {},
    system = fs,
  }: DiskStoreOptions) {
    this.folder = join(resolve(directory), key);
    this.options = { maxBytes, dtype, minFreeBytes, onWarning, system };
  }

  /** Opens what earlier runs left in the folder, if there is any. Never rejects: what cannot be read is computed again. */
  static async open(options: DiskStoreOptions): Promise<DiskStore> {
    const store = new DiskStore(options);
    for (const name of await fileNames(store.folder)) if (name.endsWith(".index")) await store.load(name);
    return store;
  }

  has(key: string): boolean {
    return this.places.has(key);
  }

  async get(key: string): Promise<KeptExample | undefined> {
    const reading = this.find(key);
    this.reads.add(reading);
    const values = await reading;
    this.reads.delete(reading);
    if (values === undefined) this.misses++;
    else this.hits++;
    return values;
  }

  async put(key: string, values: KeptExample): Promise<boolean> {
    const { dtype } = this.options;
    if (this.has(key)) return true;
    if (!this.hasRoom(leastBytes(values, dtype))) return this.refuse();
    let bytes: Uint8Array;
    try {
      bytes = encodeExample(values, dtype);
    } catch (error) {
      if (error instanceof RangeError) return this.refuse(); // the system has no more memory to give
      throw error;
    }
    const writing = this.writes.then(() => this.append(key, bytes));
    this.writes = writing;
    return (await writing) || this.refuse();
  }

  stats(): PrefixStats {
    const { bytes, hits, misses, refused, damaged } = this;
    return { examples: this.places.size, bytes, hits, misses, refused, damaged };
  }

  close({ remove = false }: { remove?: boolean } = {}): Promise<void> {
    this.closing ??= this.finish(remove);
    return this.closing;
  }

  private async finish(remove: boolean): Promise<void> {
    this.failed = true;
    await this.writes;
    await Promise.all(this.reads);
    this.places.clear();
    for (const handle of this.handles.splice(0)) await handle.close().catch(() => undefined);
    if (!remove) return;
    await removeFolder(this.folder);
    if (this.created === undefined) return;
    for (let parent = dirname(this.folder); parent.startsWith(this.created); parent = dirname(parent))
      await fs.rmdir(parent).catch(() => undefined); // only if nothing else lies there
  }

  /** Takes in the examples of an index. */
  private async load(name: string): Promise<void> {
    const path = join(this.folder, name);
    try {
      const file = await this.options.system.open(`${path.slice(0, -".index".length)}.data`, "r");
      this.handles.push(file);
      // In this order: what an index names was written before, so a file that is still growing is long enough.
      const index = await fs.readFile(path, "latin1");
      const { size } = await file.stat();
      this.bytes += size + index.length;
      for (const entry of parseIndex(index, size)) this.add({ ...entry, file });
    } catch (error) {
      // Another process may just have made it, or removed it.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") this.warn("read", error);
    }
  }

  private add(place: Place): void {
    const places = this.places.get(place.key);
    if (places === undefined) this.places.set(place.key, [place]);
    else places.push(place);
  }

  private async find(key: string): Promise<KeptExample | undefined> {
    for (let place = this.places.get(key)?.at(-1); place; place = this.places.get(key)?.at(-1)) {
      const bytes = await this.read(place);
      if (bytes !== undefined) return decodeExample(bytes);
      this.drop(place);
    }
    return undefined;
  }

  /** The bytes at a place, if they are those that were written. */
  private async read({ file, offset, length, crc }: Place): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      // Memory that is not zeroed first, and not shared with other buffers.
      const bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) return undefined;
        done += bytesRead;
      }
      return crc32c(bytes) === crc ? bytes : undefined;
    } catch (error) {
      if (this.closing === undefined) this.warn("read", error);
      return undefined;
    }
  }

  /** Forgets a place that is damaged; another reader may have done so already. */
  private drop(place: Place): void {
    const places = this.places.get(place.key);
    const index = places?.indexOf(place) ?? -1;
    if (index < 0) return;
    this.damaged++;
    places!.splice(index, 1);
    if (places!.length === 0) this.places.delete(place.key);
  }

  private refuse(): false {
    this.refused++;
    return false;
  }

  private hasRoom(length: number): boolean {
    return !this.failed && this.bytes + length <= this.options.maxBytes;
  }

  /** Writes an example to the end of this process's files. */
  private async append(key: string, bytes: Uint8Array): Promise<boolean> {
    if (this.has(key)) return true;
    if (!this.hasRoom(bytes.length)) return false;
    try {
      this.writing ??= await this.create();
      await this.checkSpace(bytes.length);
      const { data, index, dataSize } = this.writing;
      const place = { key, offset: dataSize, length: bytes.length, crc: crc32c(bytes), file: data };
      const line = new TextEncoder().encode(indexLine(place));
      await writeFully(data, bytes, dataSize);
      await writeFully(index, line, null);
      this.writing.dataSize += bytes.length;
      this.bytes += bytes.length + line.length;
      this.add(place);
      return true;
    } catch (error) {
      this.failed = true;
      this.warn("write", error);
      // What was written of it takes room that others may need now.
      await this.writing?.data.truncate(this.writing.dataSize).catch(() => undefined);
      return false;
    }
  }

  private async create(): Promise<Writing> {
    const { open } = this.options.system;
    this.created = await makeDirectory(this.folder);
    const path = join(this.folder, randomBytes(8).toString("hex"));
    const data = await open(`${path}.data`, "wx+");
    this.handles.push(data);
    const index = await open(`${path}.index`, "ax");
    this.handles.push(index);
    const start = new TextEncoder().encode(INDEX_START);
    await writeFully(index, start, null);
    this.bytes += start.length;
    return { data, index, dataSize: 0 };
  }

  /** @throws an error like the system's if the disk is nearly full. */
  private async checkSpace(length: number): Promise<void> {
    this.unchecked += length;
    if (this.unchecked < SPACE_CHECK) return;
    this.unchecked = 0;
    const { bavail, bsize } = await this.options.system.statfs(this.folder);
    if (bavail * bsize < this.options.minFreeBytes)
      throw Object.assign(new Error("the disk is nearly full"), { code: "ENOSPC" });
  }

  private warn(action: "read" | "write", error: unknown): void {
    if (this.warned) return;
    this.warned = true;
    const { message } = error as Error;
    const effect = {
      read: "what is missing is computed again",
      write: "what is not there yet is computed again in each epoch",
    }[action];
    this.options.onWarning(
      `Cannot ${action} the cache of frozen activations in ${this.folder}: ${message}; ${effect}.`,
    );
  }
}

/** One call may write only a part: on a full disk what fits, and only the next call fails. `position` null: at the end. */
async function writeFully(file: fs.FileHandle, bytes: Uint8Array, position: number | null): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const at = position === null ? null : position + done;
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at);
    if (bytesWritten === 0) throw Object.assign(new Error("nothing was written"), { code: "ENOSPC" });
    done += bytesWritten;
  }
}

/** Names of the files in a store's folder that are a store's. */
async function fileNames(folder: string): Promise<string[]> {
  const names = await fs.readdir(folder).catch(() => []);
  return names.filter((name) => /^[0-9a-f]{16}\.(data|index)$/.test(name)).sort();
}

/** Deletes a store's files, and its folder if there is nothing else in it. Returns the bytes that were freed. */
async function removeFolder(folder: string): Promise<number> {
  let freed = 0;
  for (const name of await fileNames(folder)) {
    const path = join(folder, name);
    try {
      const { size } = await fs.stat(path);
      await fs.rm(path);
      freed += size;
    } catch {
      // It is in use, on Windows, or another process was faster.
    }
  }
  await fs.rmdir(folder).catch(() => undefined);
  return freed;
}

/**
 * Deletes what other prefixes have stored in a cache's folder; `keep` names those that stay. Only files that a store makes
 * are touched. (A process that still uses one of them goes on with the files it has open.)
 */
export async function removeStale(
  directory: string,
  keep: string | readonly string[],
): Promise<{ folders: string[]; bytes: number }> {
  const kept = new Set(typeof keep === "string" ? [keep] : keep);
  const found = await fs.readdir(directory, { withFileTypes: true }).catch(() => []);
  const stale = found.filter(
    (entry) => entry.isDirectory() && /^[0-9a-f]{64}$/.test(entry.name) && !kept.has(entry.name),
  );
  const folders = stale.map(({ name }) => name);
  let bytes = 0;
  for (const name of folders) bytes += await removeFolder(join(directory, name));
  return { folders, bytes };
}

/** Whether there is a cache's folder. */
export const isThere = (directory: string): Promise<boolean> =>
  fs.stat(directory).then(
    () => true,
    () => false,
  );

/** Deletes a cache's folder if nothing lies in it. */
export const removeIfEmpty = async (directory: string): Promise<void> =>
  fs.rmdir(directory).catch(() => undefined);

/** Memory that this process can still take, in bytes: what the system, or the container it runs in, has left. */
export const freeMemory = (): number =>
  // Node 20.13 and later have it.
  (process.availableMemory as (() => number) | undefined)?.() ?? freemem();

/** Space for files in a folder, which need not exist yet, in bytes; undefined if the system does not say. */
export async function freeDisk(directory: string): Promise<number | undefined> {
  for (let path = resolve(directory); ; path = dirname(path)) {
    try {
      const { bavail, bsize } = await fs.statfs(path);
      return bavail * bsize;
    } catch (error) {
      const missing = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
      if (!missing || dirname(path) === path) return undefined;
    }
  }
}

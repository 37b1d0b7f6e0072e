import * as fs from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { makeDirectory } from "../../../checkpoint/node.ts";
import { fileNames, removeFolder } from "../disk-files/node.ts";
import { Places } from "../disk-places/node.ts";
import { DiskWriter, type System } from "../disk-writer/node.ts";
import { encodeExample, leastBytes } from "../encoding.ts";
import { parseIndex } from "../index-lines.ts";
import type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "../types.ts";

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
  /** Default: the system's. */
  readonly system?: System;
};

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
  private readonly places: Places;
  private readonly handles: fs.FileHandle[] = [];
  private readonly reads = new Set<Promise<unknown>>();
  /** Puts follow one another: the next one's place is known when the one before has ended. */
  private writes: Promise<unknown> = Promise.resolve();
  private writer: DiskWriter | undefined;
  /** No put will be tried any more. */
  private failed = false;
  private warned = false;
  private closing: Promise<void> | undefined;
  /** The topmost folder that was made. */
  private created: string | undefined;
  /** Of the files of others. */
  private found = 0;
  private hits = 0;
  private misses = 0;
  private refused = 0;

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
    this.places = new Places((error) => {
      if (this.closing === undefined) this.warn("read", error);
    });
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
    const reading = this.places.find(key);
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
    const { bytes, hits, misses, refused } = this;
    const { size: examples, damaged } = this.places;
    return { examples, bytes, hits, misses, refused, damaged };
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
      this.found += size + index.length;
      for (const entry of parseIndex(index, size)) this.places.add({ ...entry, file });
    } catch (error) {
      // Another process may just have made it, or removed it.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") this.warn("read", error);
    }
  }

  /** Of all files. */
  private get bytes(): number {
    return this.found + (this.writer?.bytes ?? 0);
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
      this.writer ??= await this.create();
      this.places.add(await this.writer.append(key, bytes, this.options));
      return true;
    } catch (error) {
      this.failed = true;
      this.warn("write", error);
      await this.writer?.forgetFailed();
      return false;
    }
  }

  private async create(): Promise<DiskWriter> {
    this.created = await makeDirectory(this.folder);
    return DiskWriter.create(this.folder, this.options.system, (file) => this.handles.push(file));
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

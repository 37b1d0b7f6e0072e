import type { FileHandle } from "node:fs/promises";
import { crc32c } from "../../crc32c.ts";
import { decodeExample } from "../encoding.ts";
import type { Entry } from "../index-lines.ts";
import type { KeptExample } from "../types.ts";

/** Where an example lies, and the open file. */
export type Place = Entry & { readonly file: FileHandle };

/** Where examples lie in open files. Good and bad are told apart when they are read, so an example may have several places. */
export class Places {
  private readonly places = new Map<string, Place[]>();
  private readonly onError: (error: unknown) => void;
  /** Entries that did not pass their checksum. */
  damaged = 0;

  /** @param onError told if a file cannot be read. */
  constructor(onError: (error: unknown) => void) {
    this.onError = onError;
  }

  get size(): number {
    return this.places.size;
  }

  has(key: string): boolean {
    return this.places.has(key);
  }

  add(place: Place): void {
    const places = this.places.get(place.key);
    if (places === undefined) this.places.set(place.key, [place]);
    else places.push(place);
  }

  clear(): void {
    this.places.clear();
  }

  /** An example's values, from the first of its places that is good. */
  async find(key: string): Promise<KeptExample | undefined> {
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
      this.onError(error);
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
}

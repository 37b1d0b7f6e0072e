import { decodeExample, encodeExample, leastBytes } from "./encoding.ts";
import type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "./types.ts";

export type MemoryStoreOptions = {
  /** Room for the examples, in bytes. */
  readonly maxBytes: number;
  /** Default "float32". */
  readonly dtype?: KeptDType;
};

/** Examples in memory, up to a bound. */
export class MemoryStore implements PrefixStore {
  private readonly maxBytes: number;
  private readonly dtype: KeptDType;
  private readonly examples = new Map<string, Uint8Array<ArrayBuffer>>();
  private bytes = 0;
  private hits = 0;
  private misses = 0;
  private refused = 0;

  constructor({ maxBytes, dtype = "float32" }: MemoryStoreOptions) {
    this.maxBytes = maxBytes;
    this.dtype = dtype;
  }

  has(key: string): boolean {
    return this.examples.has(key);
  }

  async get(key: string): Promise<KeptExample | undefined> {
    const bytes = this.examples.get(key);
    if (bytes === undefined) this.misses++;
    else this.hits++;
    return bytes && decodeExample(bytes);
  }

  async put(key: string, values: KeptExample): Promise<boolean> {
    if (this.examples.has(key)) return true;
    const bytes = this.encoded(values);
    if (bytes === undefined) {
      this.refused++;
      return false;
    }
    this.examples.set(key, bytes);
    this.bytes += bytes.length;
    return true;
  }

  /** The bytes to keep; undefined if there is no room for them. */
  private encoded(values: KeptExample): Uint8Array<ArrayBuffer> | undefined {
    const room = this.maxBytes - this.bytes;
    if (leastBytes(values, this.dtype) > room) return undefined;
    try {
      const bytes = encodeExample(values, this.dtype);
      return bytes.length <= room ? bytes : undefined;
    } catch (error) {
      if (error instanceof RangeError) return undefined; // the system has no more memory to give
      throw error;
    }
  }

  stats(): PrefixStats {
    const { bytes, hits, misses, refused } = this;
    return { examples: this.examples.size, bytes, hits, misses, refused, damaged: 0 };
  }

  async close(): Promise<void> {
    this.examples.clear();
    this.bytes = 0;
  }
}

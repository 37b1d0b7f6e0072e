import type { KeptExample, PrefixStats, PrefixStore } from "./types.ts";

/**
 * The values used last, in memory, up to a bound: for what is wanted again soon or not at all, as a picture's features are
 * while the next rows may be about the same picture.
 */
export class RecentStore implements PrefixStore {
  private readonly maxBytes: number;
  /** The one used longest ago comes first. */
  private readonly values = new Map<string, KeptExample>();
  private bytes = 0;
  private hits = 0;
  private misses = 0;
  private refused = 0;

  /** @param maxBytes room for the values. */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  has(key: string): boolean {
    return this.values.has(key);
  }

  async get(key: string): Promise<KeptExample | undefined> {
    const values = this.values.get(key);
    if (values === undefined) {
      this.misses++;
      return undefined;
    }
    this.hits++;
    this.values.delete(key);
    this.values.set(key, values);
    return values;
  }

  async put(key: string, values: KeptExample): Promise<boolean> {
    if (this.values.has(key)) return true;
    const size = sizeOf(values);
    if (size > this.maxBytes) {
      this.refused++;
      return false;
    }
    for (const [oldest, old] of this.values) {
      if (this.bytes + size <= this.maxBytes) break;
      this.values.delete(oldest);
      this.bytes -= sizeOf(old);
    }
    this.values.set(key, values);
    this.bytes += size;
    return true;
  }

  stats(): PrefixStats {
    const { bytes, hits, misses, refused } = this;
    return { examples: this.values.size, bytes, hits, misses, refused, damaged: 0 };
  }

  async close(): Promise<void> {
    this.values.clear();
    this.bytes = 0;
  }
}

function sizeOf(values: KeptExample): number {
  let bytes = 0;
  for (const { data } of values.values()) bytes += data.byteLength;
  return bytes;
}

import type { KeptExample, PrefixStats, PrefixStore } from "./types.ts";

/** Room at first, in bytes: for the features of some dozens of pictures. */
const FIRST_BYTES = 64 * 2 ** 20;

/**
 * The values used last, in memory, up to a bound: for what is wanted again soon or not at all, as a picture's features are
 * while the next rows may be about the same picture. It takes little room at first, and twice as much whenever something that it
 * has given up is asked for: data without a second row about a picture fill no memory.
 */
export class RecentStore implements PrefixStore {
  private readonly maxBytes: number;
  /** The one used longest ago comes first. */
  private readonly values = new Map<string, KeptExample>();
  private readonly givenUp = new Set<string>();
  private room: number;
  private bytes = 0;
  private hits = 0;
  private misses = 0;
  private refused = 0;

  /** @param maxBytes the most room that the values may take. */
  constructor(maxBytes: number, { firstBytes = FIRST_BYTES }: { firstBytes?: number } = {}) {
    this.maxBytes = maxBytes;
    this.room = Math.min(firstBytes, maxBytes);
  }

  has(key: string): boolean {
    return this.values.has(key);
  }

  async get(key: string): Promise<KeptExample | undefined> {
    const values = this.values.get(key);
    if (values === undefined) {
      this.misses++;
      if (this.givenUp.delete(key)) this.room = Math.min(2 * this.room, this.maxBytes);
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
    this.room = Math.max(this.room, size);
    for (const [oldest, old] of this.values) {
      if (this.bytes + size <= this.room) break;
      this.values.delete(oldest);
      this.givenUp.add(oldest);
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
    this.givenUp.clear();
    this.bytes = 0;
  }
}

function sizeOf(values: KeptExample): number {
  let bytes = 0;
  for (const { data } of values.values()) bytes += data.byteLength;
  return bytes;
}

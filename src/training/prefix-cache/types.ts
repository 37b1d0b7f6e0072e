import type { Tensor } from "../../tensor/index.ts";

/** One example's kept values, by name; each a float32 tensor [rows, …] or [...shape]. */
export type KeptExample = ReadonlyMap<string, Tensor<"float32">>;

/** How kept values are stored. With float32 they come back bit for bit. */
export type KeptDType = "float32" | "float16" | "bfloat16";

export type PrefixStats = {
  /** Examples that can be had. */
  readonly examples: number;
  /** Room they take, and what else the store has on disk. */
  readonly bytes: number;
  readonly hits: number;
  readonly misses: number;
  /** Examples that were not taken for want of room, or because the disk could not be written. */
  readonly refused: number;
  /** Entries that did not pass their checksum, and count as missing since. */
  readonly damaged: number;
};

/**
 * What the frozen part of a model computes for each example, for all epochs after the first.
 *
 * A store that is full takes nothing more and gives nothing up. Each epoch reads every example once, in an order of its own.
 * If room is there for C of N examples, any C that stay save C/N of the work, which is the most there is to save; to evict
 * what was used longest ago, as caches do, is the worst for a cycle: every example goes just before its turn comes, and
 * none is ever found.
 */
export interface PrefixStore {
  /** Whether `get` can be expected to find it; damage shows only when an entry is read. */
  has(key: string): boolean;
  /**
   * An example's values, or undefined if they have to be computed. They may lie in the store's own memory: read them,
   * never write to them. Never rejects; may be called concurrently.
   */
  get(key: string): Promise<KeptExample | undefined>;
  /**
   * Stores a copy of an example's values; true if the store has them now. False: no room, so that they are computed again
   * the next time. Never rejects; may be called concurrently.
   */
  put(key: string, values: KeptExample): Promise<boolean>;
  stats(): PrefixStats;
  /** Waits for what is under way and frees everything. `remove`: what is on disk too. */
  close(options?: { remove?: boolean }): Promise<void>;
}

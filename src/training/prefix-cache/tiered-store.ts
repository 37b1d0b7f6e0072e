import type { KeptExample, PrefixStats, PrefixStore } from "./types.ts";

/** Several stores as one, the fastest first: an example goes to the first that has room for it, and stays there. */
export class TieredStore implements PrefixStore {
  private readonly tiers: readonly PrefixStore[];
  private hits = 0;
  private misses = 0;
  private refused = 0;

  constructor(tiers: readonly PrefixStore[]) {
    this.tiers = tiers;
  }

  has(key: string): boolean {
    return this.tiers.some((tier) => tier.has(key));
  }

  async get(key: string): Promise<KeptExample | undefined> {
    for (const tier of this.tiers) {
      const values = tier.has(key) ? await tier.get(key) : undefined;
      if (values === undefined) continue;
      this.hits++;
      return values;
    }
    this.misses++;
    return undefined;
  }

  async put(key: string, values: KeptExample): Promise<boolean> {
    if (this.has(key)) return true;
    for (const tier of this.tiers) if (await tier.put(key, values)) return true;
    this.refused++;
    return false;
  }

  stats(): PrefixStats {
    const { hits, misses, refused } = this;
    const sum = { examples: 0, bytes: 0, damaged: 0 };
    for (const tier of this.tiers) {
      const { examples, bytes, damaged } = tier.stats();
      sum.examples += examples;
      sum.bytes += bytes;
      sum.damaged += damaged;
    }
    return { ...sum, hits, misses, refused };
  }

  async close(options?: { remove?: boolean }): Promise<void> {
    for (const tier of this.tiers) await tier.close(options);
  }
}

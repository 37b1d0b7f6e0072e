import { uniformInt } from "pure-rand/distribution/uniformInt";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/** One well-mixed 32-bit seed from several integers, so that neighbouring seeds and epochs have nothing in common. */
export function mixSeeds(parts: readonly number[]): number {
  let hash = 0x9e3779b9;
  for (const part of parts) {
    // Both halves of a 53-bit integer count. The steps are murmur3's.
    for (let word of [part | 0, Math.floor(part / 2 ** 32) | 0]) {
      word = Math.imul(word, 0xcc9e2d51);
      word = (word << 15) | (word >>> 17);
      hash ^= Math.imul(word, 0x1b873593);
      hash = (hash << 13) | (hash >>> 19);
      hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
    }
  }
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** The numbers from 0 to length - 1 in an order that depends on the seeds alone (Fisher and Yates). */
export function permutation(length: number, seeds: readonly number[]): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  const generator = xoroshiro128plus(mixSeeds(seeds));
  for (let i = length - 1; i > 0; i--) {
    const j = uniformInt(generator, 0, i);
    const swapped = order[i]!;
    order[i] = order[j]!;
    order[j] = swapped;
  }
  return order;
}

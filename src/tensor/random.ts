import { uniformFloat64 } from "pure-rand/distribution/uniformFloat64";
import { uniformInt } from "pure-rand/distribution/uniformInt";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";
import type { RandomGenerator } from "pure-rand/types/RandomGenerator";

export type { RandomGenerator };

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

/** An integer from a text, to seed with: FNV-1a. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash | 0;
}

/**
 * xoroshiro128+ started from several integers. Its first outputs are close to the seed itself, so the first 64 are thrown
 * away.
 */
export function seededGenerator(...seeds: readonly number[]): RandomGenerator {
  const random = xoroshiro128plus(mixSeeds(seeds));
  for (let i = 0; i < 64; i++) random.next();
  return random;
}

/** Uniform in [0, 1), 53 random bits. */
export const uniform = (random: RandomGenerator): number => uniformFloat64(random);

/** A uniform integer from `from` to `to`, both included. */
export const uniformInteger = (random: RandomGenerator, from: number, to: number): number =>
  uniformInt(random, from, to);

/** The numbers from 0 to length - 1 in an order that depends on the seeds alone (Fisher and Yates). */
export function permutation(length: number, seeds: readonly number[]): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  const random = xoroshiro128plus(mixSeeds(seeds));
  for (let i = length - 1; i > 0; i--) {
    const j = uniformInteger(random, 0, i);
    const swapped = order[i]!;
    order[i] = order[j]!;
    order[j] = swapped;
  }
  return order;
}

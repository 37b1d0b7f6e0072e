import type { Architecture } from "./row-checks.ts";
import type { EncodedRow } from "./rows.ts";
import { type DatasetStats, IGNORED_LABEL } from "./types.ts";

/** Labels that count after the shift by one: those at positions 1 and later that are not -100. */
export function countLabels(labels: ArrayLike<number>): number {
  let count = 0;
  for (let i = 1; i < labels.length; i++) if (labels[i] !== IGNORED_LABEL) count++;
  return count;
}

/** A decoder's labels that count. */
const countDecoderLabels = (labels: ArrayLike<number>): number =>
  countLabels(labels) + (labels.length > 0 && labels[0] !== IGNORED_LABEL ? 1 : 0);

const maxIgnoredKeys = 100;

/** Counts rows once each, however often they are read. */
export class StatsCounter {
  readonly stats: DatasetStats = {
    examples: 0,
    tokens: 0,
    labelTokens: 0,
    truncated: 0,
    withoutLabels: 0,
    tokenizedApart: 0,
    ignoredKeys: [],
  };
  readonly #seen: Uint8Array;
  readonly #count: (labels: ArrayLike<number>) => number;

  constructor(length: number, architecture: Architecture = "decoder") {
    this.#seen = new Uint8Array(length);
    this.#count = architecture === "decoder" ? countLabels : countDecoderLabels;
  }

  add(index: number, { example, truncated, tokenizedApart, ignoredKeys }: EncodedRow): void {
    if (this.#seen[index] === 1) return;
    this.#seen[index] = 1;
    const { stats } = this;
    const labelTokens = this.#count(example.labels);
    stats.examples++;
    stats.tokens += example.inputIds.length;
    stats.labelTokens += labelTokens;
    if (truncated) stats.truncated++;
    if (labelTokens === 0) stats.withoutLabels++;
    if (tokenizedApart) stats.tokenizedApart++;
    for (const key of ignoredKeys)
      if (stats.ignoredKeys.length < maxIgnoredKeys && !stats.ignoredKeys.includes(key))
        stats.ignoredKeys.push(key);
  }
}

/** The sum over several datasets. */
export function mergeStats(parts: readonly (DatasetStats | undefined)[]): DatasetStats {
  const { stats } = new StatsCounter(0);
  for (const part of parts) {
    if (part === undefined) continue;
    for (const key of [
      "examples",
      "tokens",
      "labelTokens",
      "truncated",
      "withoutLabels",
      "tokenizedApart",
    ] as const)
      stats[key] += part[key];
    stats.ignoredKeys = [...new Set([...stats.ignoredKeys, ...part.ignoredKeys])];
  }
  return stats;
}

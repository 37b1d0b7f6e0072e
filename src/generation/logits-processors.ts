import { GraftError } from "../errors.ts";
import { floatOfKey, orderedKeys, selectTop } from "./top-selection.ts";

/**
 * Changes next-token scores in place. Class names and arithmetic are those of transformers'
 * generation/logits_process.py; a score of −∞ takes a token out.
 */
export type LogitsProcessor = {
  /**
   * @param inputIds prompt and tokens generated so far.
   * @param logits one score per token of the vocabulary [vocab].
   */
  process(inputIds: ArrayLike<number>, logits: Float32Array): void;
};

/** Divides scores by the temperature: below 1 sharpens the distribution, above 1 flattens it. */
export class TemperatureLogitsWarper implements LogitsProcessor {
  readonly temperature: number;

  /** @throws GraftError if `temperature` is not above 0; for temperature 0 take the largest score instead. */
  constructor(temperature: number) {
    check(
      temperature > 0 && temperature < Infinity,
      "temperature",
      "a finite number greater than 0",
      temperature,
    );
    this.temperature = temperature;
  }

  process(_inputIds: ArrayLike<number>, logits: Float32Array): void {
    const divisor = Math.fround(this.temperature);
    for (let i = 0; i < logits.length; i++) logits[i]! /= divisor;
  }
}

/**
 * Keeps the `topK` largest scores, and any equal to the smallest of those.
 * Source: Fan et al. 2018, §5.4.
 */
export class TopKLogitsWarper implements LogitsProcessor {
  readonly topK: number;

  /** @throws GraftError if `topK` or `minTokensToKeep` is not a whole number of at least 1. */
  constructor(topK: number, { minTokensToKeep = 1 }: { minTokensToKeep?: number } = {}) {
    check(isCount(topK), "topK", "a whole number of at least 1", topK);
    checkMinTokens(minTokensToKeep);
    this.topK = Math.max(topK, minTokensToKeep);
  }

  process(_inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (this.topK >= logits.length) return;
    const keys = orderedKeys(logits);
    keepAbove(logits, keys, selectTop(keys, this.topK).key, logits.length);
  }
}

/**
 * Nucleus sampling: keeps the fewest most probable tokens whose probabilities sum to `topP` or more. Of equal
 * scores at the boundary those of higher token ids stay (in transformers it depends on torch.sort, which is
 * not stable; with a stable sort it is the same).
 * Probabilities are summed in double precision (transformers: float32).
 * Source: Holtzman et al. 2020, §3.1.
 */
export class TopPLogitsWarper implements LogitsProcessor {
  readonly topP: number;
  readonly minTokensToKeep: number;
  #weights = new Float64Array();

  /** @throws GraftError if `topP` is not from 0 to 1 or `minTokensToKeep` not a whole number of at least 1. */
  constructor(topP: number, { minTokensToKeep = 1 }: { minTokensToKeep?: number } = {}) {
    check(topP >= 0 && topP <= 1, "topP", "from 0 to 1", topP);
    checkMinTokens(minTokensToKeep);
    this.topP = topP;
    this.minTokensToKeep = minTokensToKeep;
  }

  process(_inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (this.#weights.length !== logits.length) this.#weights = new Float64Array(logits.length);
    const weights = this.#weights;
    const total = exponentials(logits, weights);
    const keys = orderedKeys(logits);
    if (this.topP > 0) {
      const target = this.topP * total;
      const { key, above } = selectTop(keys, target, weights);
      // A token at the threshold stays while those ranked above it weigh less than the target.
      const weight = Math.exp(floatOfKey(key) - max(logits));
      const atThreshold = Math.max(1, Math.ceil((target - above) / weight));
      if (countAbove(keys, key) + atThreshold >= this.minTokensToKeep) {
        keepAbove(logits, keys, key, atThreshold);
        return;
      }
    }
    keepLargest(logits, keys, this.minTokensToKeep);
  }
}

/**
 * Keeps tokens at least `minP` times as probable as the most probable one.
 * Source: Nguyen et al. 2024, §3.
 */
export class MinPLogitsWarper implements LogitsProcessor {
  readonly minP: number;
  readonly minTokensToKeep: number;

  /** @throws GraftError if `minP` is not from 0 to 1 or `minTokensToKeep` not a whole number of at least 1. */
  constructor(minP: number, { minTokensToKeep = 1 }: { minTokensToKeep?: number } = {}) {
    check(minP >= 0 && minP <= 1, "minP", "from 0 to 1", minP);
    checkMinTokens(minTokensToKeep);
    this.minP = minP;
    this.minTokensToKeep = minTokensToKeep;
  }

  process(_inputIds: ArrayLike<number>, logits: Float32Array): void {
    const largest = max(logits);
    const stays = (score: number): boolean => Math.exp(score - largest) >= this.minP;
    const staying = logits.reduce((count, score) => count + Number(stays(score)), 0);
    if (staying < this.minTokensToKeep) keepLargest(logits, orderedKeys(logits), this.minTokensToKeep);
    else for (let i = 0; i < logits.length; i++) if (!stays(logits[i]!)) logits[i] = -Infinity;
  }
}

/**
 * Makes tokens that occur in the prompt or output less likely: positive scores are divided by `penalty`,
 * negative ones multiplied, once per token however often it occurs. Below 1 it makes them more likely.
 * Source: Keskar et al. 2019, §4.1.
 */
export class RepetitionPenaltyLogitsProcessor implements LogitsProcessor {
  readonly penalty: number;

  /** @throws GraftError if `penalty` is not above 0. */
  constructor(penalty: number) {
    check(penalty > 0 && penalty < Infinity, "penalty", "a finite number greater than 0", penalty);
    this.penalty = penalty;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    const penalty = Math.fround(this.penalty);
    for (const id of new Set(Array.from(inputIds)))
      if (id < logits.length) logits[id] = logits[id]! < 0 ? logits[id]! * penalty : logits[id]! / penalty;
  }
}

/** Takes out every token that would complete an n-gram of `ngramSize` tokens which has occurred before. */
export class NoRepeatNGramLogitsProcessor implements LogitsProcessor {
  readonly ngramSize: number;

  /** @throws GraftError if `ngramSize` is not a whole number of at least 1. */
  constructor(ngramSize: number) {
    check(isCount(ngramSize), "ngramSize", "a whole number of at least 1", ngramSize);
    this.ngramSize = ngramSize;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    const before = this.ngramSize - 1;
    const suffix = inputIds.length - before;
    for (let start = 0; start + before < inputIds.length; start++) {
      let same = true;
      for (let k = 0; k < before && same; k++) same = inputIds[start + k] === inputIds[suffix + k];
      const banned = inputIds[start + before]!;
      if (same && banned < logits.length) logits[banned] = -Infinity;
    }
  }
}

/** Takes out end-of-sequence tokens until `minNewTokens` tokens have been generated. */
export class MinNewTokensLengthLogitsProcessor implements LogitsProcessor {
  readonly promptLength: number;
  readonly minNewTokens: number;
  readonly eosTokenIds: readonly number[];

  constructor(promptLength: number, minNewTokens: number, eosTokenIds: readonly number[]) {
    this.promptLength = promptLength;
    this.minNewTokens = minNewTokens;
    this.eosTokenIds = eosTokenIds;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (inputIds.length - this.promptLength >= this.minNewTokens) return;
    for (const id of this.eosTokenIds) if (id < logits.length) logits[id] = -Infinity;
  }
}

/** Takes out end-of-sequence tokens until there are `minLength` tokens, what the text begins with counted in. */
export class MinLengthLogitsProcessor implements LogitsProcessor {
  readonly minLength: number;
  readonly eosTokenIds: readonly number[];

  constructor(minLength: number, eosTokenIds: readonly number[]) {
    this.minLength = minLength;
    this.eosTokenIds = eosTokenIds;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (inputIds.length >= this.minLength) return;
    for (const id of this.eosTokenIds) if (id < logits.length) logits[id] = -Infinity;
  }
}

/** Leaves one token after the first: that of an encoder–decoder's start, or a prompt of one token. */
export class ForcedBOSTokenLogitsProcessor implements LogitsProcessor {
  readonly bosTokenId: number;

  constructor(bosTokenId: number) {
    this.bosTokenId = bosTokenId;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (inputIds.length === 1) leaveOnly([this.bosTokenId], logits);
  }
}

/** Leaves end-of-sequence tokens alone where a text comes to its limit. */
export class ForcedEOSTokenLogitsProcessor implements LogitsProcessor {
  readonly maxLength: number;
  readonly eosTokenIds: readonly number[];

  /** @param maxLength limit of tokens, what the text begins with counted in. */
  constructor(maxLength: number, eosTokenIds: readonly number[]) {
    this.maxLength = maxLength;
    this.eosTokenIds = eosTokenIds;
  }

  process(inputIds: ArrayLike<number>, logits: Float32Array): void {
    if (inputIds.length === this.maxLength - 1) leaveOnly(this.eosTokenIds, logits);
  }
}

/** @throws GraftError if the model does not have one of the tokens. */
function leaveOnly(ids: readonly number[], logits: Float32Array): void {
  const unknown = ids.find((id) => id >= logits.length);
  if (unknown !== undefined)
    throw new GraftError(
      `Token ${unknown} is to be forced, and the vocabulary has ${logits.length} tokens. Correct forcedBosTokenId or forcedEosTokenId.`,
      { code: "token-out-of-vocabulary", details: { token: unknown, vocabSize: logits.length } },
    );
  logits.fill(-Infinity);
  for (const id of ids) logits[id] = 0;
}

/** Largest score. */
function max(logits: Float32Array): number {
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) if (logits[i]! > largest) largest = logits[i]!;
  return largest;
}

/** weights[i] = exp(logits[i] − max logits); returns their sum. */
export function exponentials(logits: Float32Array, weights: Float64Array): number {
  const largest = max(logits);
  let total = 0;
  for (let i = 0; i < logits.length; i++) {
    const weight = logits[i] === -Infinity ? 0 : Math.exp(logits[i]! - largest);
    weights[i] = weight;
    total += weight;
  }
  return total;
}

function countAbove(keys: Int32Array, key: number): number {
  let count = 0;
  for (let i = 0; i < keys.length; i++) if (keys[i]! > key) count++;
  return count;
}

/** Takes out what lies below `key`, and of what equals it all but the `atKey` of the highest ids. */
function keepAbove(logits: Float32Array, keys: Int32Array, key: number, atKey: number): void {
  let left = atKey;
  for (let i = keys.length - 1; i >= 0; i--) {
    const own = keys[i]!;
    if (own < key || (own === key && left-- <= 0)) logits[i] = -Infinity;
  }
}

function keepLargest(logits: Float32Array, keys: Int32Array, count: number): void {
  if (count >= logits.length) return;
  const { key, above } = selectTop(keys, count);
  keepAbove(logits, keys, key, count - above);
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1;

const checkMinTokens = (value: number): void =>
  check(isCount(value), "minTokensToKeep", "a whole number of at least 1", value);

function check(valid: boolean, name: string, expectation: string, value: number): void {
  if (!valid)
    throw new GraftError(`${name} must be ${expectation}, got ${value}.`, {
      code: "invalid-generation-config",
      details: { problems: [`${name} must be ${expectation}, got ${value}`] },
    });
}

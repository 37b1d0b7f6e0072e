import { xoroshiro128plusFromState } from "pure-rand/generator/xoroshiro128plus";
import { GraftError, RuntimeFailure } from "../errors.ts";
import { type RandomGenerator, seededGenerator, uniform } from "../tensor/random.ts";
import { exponentials, type LogitsProcessor } from "./logits-processors.ts";

/**
 * Index of the largest score; of equal ones the first, as torch.argmax.
 * @throws RuntimeFailure if a score is NaN or infinite, or all are −∞.
 */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! > logits[best]!) best = i;
    if (logits[i] !== -Infinity) sum += logits[i]!;
  }
  checkScores(sum, logits[best] !== -Infinity);
  return best;
}

export type SamplerOptions = {
  /** Applied to the scores in this order; see `createLogitsProcessors`. */
  processors?: readonly LogitsProcessor[];
  /** Draw from the distribution (true) or take the most probable token (false). */
  sample: boolean;
  /** Seed of the draws, 0 to 2³² − 1. Default: one chosen at random, readable as `seed`. */
  seed?: number | undefined;
};

/**
 * Chooses next tokens from scores. Equal seeds give equal choices for equal scores.
 *
 * A draw inverts the distribution function: the first token i with p₀ + … + pᵢ > u, for p = softmax(scores) and
 * u uniform in [0, 1) from xoroshiro128+. The sequence is Graft's own; PyTorch's generator gives others.
 */
export class Sampler {
  readonly seed: number;
  readonly #processors: readonly LogitsProcessor[];
  readonly #sample: boolean;
  #random: RandomGenerator;
  #weights = new Float64Array();

  /** @throws GraftError if the seed is not a whole number from 0 to 2³² − 1. */
  constructor({ processors = [], sample, seed = Math.floor(Math.random() * 2 ** 32) }: SamplerOptions) {
    if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32))
      throw new GraftError(`seed must be a whole number from 0 to 2³² − 1, got ${seed}.`, {
        code: "invalid-generation-config",
        details: { seed },
      });
    this.seed = seed;
    this.#processors = processors;
    this.#sample = sample;
    this.#random = seededGenerator(seed);
  }

  /** Whether the next token is nothing but the most probable one. */
  get isArgmax(): boolean {
    return !this.#sample && this.#processors.length === 0;
  }

  /**
   * The next token.
   * @param inputIds prompt and tokens generated so far.
   * @param logits scores of the next token [vocab]; overwritten.
   * @throws RuntimeFailure if scores are NaN or infinite, or none is left.
   */
  next(inputIds: ArrayLike<number>, logits: Float32Array): number {
    for (const processor of this.#processors) processor.process(inputIds, logits);
    if (!this.#sample) return argmax(logits);
    if (this.#weights.length !== logits.length) this.#weights = new Float64Array(logits.length);
    const weights = this.#weights;
    const total = exponentials(logits, weights);
    checkScores(total, total > 0);
    const draw = uniform(this.#random) * total;
    let cumulative = 0;
    let last = 0;
    for (let i = 0; i < weights.length; i++) {
      if (weights[i] === 0) continue;
      cumulative += weights[i]!;
      last = i;
      if (cumulative > draw) break;
    }
    return last;
  }

  /** State of the random generator, to continue from with `restore`. */
  get state(): readonly number[] {
    return this.#random.getState();
  }

  /**
   * Continues the draws of the sampler that `state` was read from.
   * @throws GraftError if it is no such state.
   */
  restore(state: readonly number[]): void {
    if (state.length !== 4 || !state.every((word) => Number.isInteger(word)))
      throw new GraftError(`A sampler's state is 4 whole numbers, got [${state}].`, {
        code: "invalid-sampler-state",
        details: { state },
      });
    this.#random = xoroshiro128plusFromState(state);
  }
}

/** @throws RuntimeFailure unless a sum of scores is finite, and a token is left */
export function checkScores(sum: number, isAnyLeft: boolean): void {
  if (!Number.isFinite(sum))
    throw new RuntimeFailure(
      "The model's scores for the next token are not finite, so there is nothing to choose by. " +
        "Check the adapter's weights: training may have diverged.",
      { code: "nonfinite-logits" },
    );
  if (!isAnyLeft)
    throw new RuntimeFailure(
      "No token is left to choose: every score is −∞. Loosen noRepeatNgramSize or minNewTokens.",
      { code: "no-token-left" },
    );
}

import { type RandomGenerator, seededGenerator, uniform } from "../tensor/random.ts";
import { createLogitsProcessors, type GenerationConfig } from "./config.ts";
import type { GeneratedToken, GrowthOptions } from "./continuation.ts";
import type { GeneratedText, Growth, Step } from "./growth.ts";
import { exponentials, type LogitsProcessor } from "./logits-processors.ts";
import { checkScores } from "./sampler.ts";
import { checkSpelling, Spelling } from "./spelling.ts";
import { type StopReason, stopReason } from "./stopping.ts";
import { topIndices } from "./top-selection.ts";

/** A text that is being followed. */
type Beam = { readonly tokens: readonly number[]; readonly score: number };
/** A text with one more token: of which row, and why it ends, if it does. */
type Candidate = Beam & { readonly row: number; readonly reason: StopReason | undefined };
type Ended = Beam & { readonly reason: StopReason };

/**
 * Beam search: follows the `numBeams` most probable beginnings of a prompt's text at once, and keeps as many ended texts,
 * ranked by log p(text) / length^lengthPenalty. With `doSample` the beginnings that go on are drawn, without replacement.
 *
 * The first step is taken from one row: every other beam would be the same.
 * Arithmetic is float32, as transformers', so that texts of nearly equal score rank the same.
 * Source: transformers generation/utils.py, `_beam_search`.
 */
export class BeamSearch implements Growth {
  private readonly options: GrowthOptions;
  private readonly config: GenerationConfig;
  private readonly processors: readonly LogitsProcessor[];
  private readonly random: RandomGenerator;
  private running: readonly Beam[] = [{ tokens: [], score: 0 }];
  private ended: readonly Ended[] = [];
  /** Whether a text that is being followed may yet beat the worst of those ended. Once it may not, it stays so. */
  private isImprovable = true;
  done = false;

  /** @throws GraftError if there are stop strings and no `decode` */
  constructor(options: GrowthOptions) {
    const { config, begun, limit, decode, seed = Math.floor(Math.random() * 2 ** 32) } = options;
    checkSpelling({ decode, stop: config.stop });
    this.options = options;
    this.config = config;
    this.processors = createLogitsProcessors(config, { promptLength: begun.length, limit });
    this.random = seededGenerator(seed);
  }

  /** The best texts, the best first: `numReturnSequences` of them. */
  get results(): GeneratedText[] {
    return this.ended.slice(0, this.config.numReturnSequences).map(({ tokens, reason, score }) => {
      const text = this.spell(tokens)
        .map((piece) => piece.text)
        .join("");
      return { tokens, text, reason, score };
    });
  }

  /** The best text, as if it had come token by token. */
  get pieces(): GeneratedToken[] {
    const { tokens, reason } = this.ended[0]!;
    return this.spell(tokens).map((piece, i) => ({
      ...piece,
      reason: i === tokens.length - 1 ? reason : undefined,
    }));
  }

  advance(scores: readonly Float32Array[]): Step {
    const { numBeams, earlyStopping, lengthPenalty } = this.config;
    const totals = scores.map((row, i) => this.totals(row, this.running[i]!));
    const candidates = this.candidates(totals);
    const length = this.running[0]!.tokens.length + 1;

    const isFull = this.ended.length === numBeams;
    if (this.isImprovable && !(isFull && earlyStopping === true)) {
      // Only what is among the best `numBeams` may end; the rest is there so that enough can go on.
      const ending = candidates.slice(0, numBeams).flatMap(({ tokens, score, reason }) => {
        const average = Math.fround(score / length ** lengthPenalty);
        return reason === undefined ? [] : [{ tokens, reason, score: average }];
      });
      this.ended = bestFirst([...this.ended, ...ending]).slice(0, numBeams);
    }
    const going = bestFirst(candidates.filter(({ reason }) => reason === undefined)).slice(0, numBeams);
    this.running = going;
    this.isImprovable &&= this.mayImprove(length);
    const isEnough = this.ended.length === numBeams && earlyStopping === true;
    this.done = !this.isImprovable || isEnough || going.length === 0;
    if (this.done && this.ended.length === 0) checkScores(0, false);
    return { tokens: going.map(({ tokens }) => tokens.at(-1)!), rows: going.map(({ row }) => row) };
  }

  /** Log-probabilities of a beam with each token as the next one, after what the configuration changes. */
  private totals(scores: Float32Array, { tokens, score }: Beam): Float32Array {
    const logProbabilities = logSoftmax(scores);
    const inputIds = [...this.options.begun, ...tokens];
    for (const processor of this.processors) processor.process(inputIds, logProbabilities);
    for (let i = 0; i < logProbabilities.length; i++) logProbabilities[i]! += score;
    return logProbabilities;
  }

  /** Enough texts for `numBeams` to go on even if all the best ones end. */
  private candidates(totals: readonly Float32Array[]): Candidate[] {
    const { numBeams, eosTokenIds, doSample } = this.config;
    const count = Math.max(2, 1 + eosTokenIds.length) * numBeams;
    const chosen = doSample ? this.draw(totals, count) : best(totals, count);
    return chosen.map(({ row, token }) => {
      const tokens = [...this.running[row]!.tokens, token];
      return { row, tokens, score: totals[row]![token]!, reason: this.reason(tokens) };
    });
  }

  /** Draws without replacement, in the order they come. */
  private draw(totals: readonly Float32Array[], count: number): Place[] {
    const width = totals[0]!.length;
    const all = new Float32Array(totals.length * width);
    for (const [row, values] of totals.entries()) all.set(values, row * width);
    const weights = new Float64Array(all.length);
    let total = exponentials(all, weights);
    checkScores(total, total > 0);
    const places: Place[] = [];
    while (places.length < count) {
      const draw = uniform(this.random) * total;
      let cumulative = 0;
      let at = -1;
      for (let i = 0; i < weights.length && !(cumulative > draw); i++) {
        if (weights[i] === 0) continue;
        cumulative += weights[i]!;
        at = i;
      }
      if (at < 0) break;
      total -= weights[at]!;
      weights[at] = 0;
      places.push({ row: Math.floor(at / width), token: at % width });
    }
    return places;
  }

  private reason(tokens: readonly number[]): StopReason | undefined {
    const { eosTokenIds, stop } = this.config;
    const { decode, limit } = this.options;
    if (stop.length > 0) {
      const text = decode!([...tokens]);
      if (stop.some((ending) => text.includes(ending))) return "stop";
    }
    return stopReason(tokens.at(-1)!, tokens.length, { eosTokenIds, maxNewTokens: limit });
  }

  /** By an estimate of the score that the best running text can come to. */
  private mayImprove(length: number): boolean {
    const { numBeams, earlyStopping, lengthPenalty } = this.config;
    if (this.running.length === 0) return false;
    if (this.ended.length < numBeams) return true;
    const hoped = earlyStopping === "never" && lengthPenalty > 0 ? this.options.limit : length;
    return Math.fround(this.running[0]!.score / hoped ** lengthPenalty) > this.ended.at(-1)!.score;
  }

  private spell(tokens: readonly number[]): { token: number; text: string }[] {
    const spelling = new Spelling({ decode: this.options.decode, stop: this.config.stop });
    return tokens.map((token, i) => ({
      token,
      text: spelling.push(token, { isLast: i === tokens.length - 1 }),
    }));
  }
}

type Place = { readonly row: number; readonly token: number };

/** Places of the `count` largest numbers of all rows, the largest first. */
function best(totals: readonly Float32Array[], count: number): Place[] {
  const places = totals.flatMap((values, row) =>
    topIndices(values, count).map((token) => ({ row, token, score: values[token]! })),
  );
  return bestFirst(places).slice(0, count);
}

const bestFirst = <T extends { readonly score: number }>(items: readonly T[]): T[] =>
  items.toSorted((a, b) => b.score - a.score);

/** log softmax(x) = x - max x - ln Σ exp(x - max x). @throws RuntimeFailure if a score is NaN or infinite */
function logSoftmax(scores: Float32Array): Float32Array {
  let largest = -Infinity;
  for (const score of scores) if (score > largest) largest = score;
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - largest);
  checkScores(sum, true);
  const logSum = Math.fround(Math.log(sum));
  return scores.map((score) => Math.fround(score - largest) - logSum);
}

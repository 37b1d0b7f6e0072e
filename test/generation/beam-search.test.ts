import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  BeamSearch,
  Continuation,
  type GenerationConfig,
  type GenerationOptions,
  resolveGenerationConfig,
} from "../../src/generation/index.ts";
import { hashText } from "../../src/tensor/random.ts";
import { Numbers } from "../support/run-graph.ts";

const EOS = 0;

/** A model whose scores follow from the text alone and look random. */
const scoresAfter = (tokens: readonly number[], { seed, vocabulary }: Toy): Float32Array =>
  Float32Array.from(new Numbers(hashText(`${seed} ${tokens.join()}`)).fill([vocabulary], -4, 4));

type Toy = { seed: number; vocabulary: number };

const configOf = (options: GenerationOptions, file: object = {}): GenerationConfig =>
  resolveGenerationConfig({ eosTokenIds: EOS, ...options }, { file }).config;

type Options = { config: GenerationConfig; limit: number; seed?: number; decode?: (ids: number[]) => string };
const growthOptions = ({ config, limit, seed, decode }: Options) =>
  ({ config, limit, begun: [1], decode, seed }) as const;

function search(toy: Toy, options: Options): BeamSearch {
  const growth = new BeamSearch(growthOptions(options));
  let texts: number[][] = [[]];
  while (!growth.done) {
    const step = growth.advance(texts.map((text) => scoresAfter(text, toy)));
    texts = step.tokens.map((token, i) => [...texts[step.rows[i]!]!, token]);
  }
  return growth;
}

function greedy(toy: Toy, options: Options): Continuation {
  const growth = new Continuation(growthOptions(options));
  while (!growth.done) growth.advance([scoresAfter(growth.result.tokens, toy)]);
  return growth;
}

/** Σ ln p of a text's tokens, in double precision. */
function logProbability(tokens: readonly number[], toy: Toy): number {
  return tokens.reduce((sum, token, i) => {
    const scores = scoresAfter(tokens.slice(0, i), toy);
    const total = scores.reduce((all, score) => all + Math.exp(score), 0);
    return sum + scores[token]! - Math.log(total);
  }, 0);
}

const toys = fc.record({ seed: fc.nat(), vocabulary: fc.integer({ min: 6, max: 30 }) });
const beamOptions = fc.record({
  numBeams: fc.integer({ min: 2, max: 5 }),
  lengthPenalty: fc.constantFrom(0, 0.5, 1, 2, -1),
  earlyStopping: fc.constantFrom(true, false, "never" as const),
});

describe("beam search", () => {
  test("with one beam that stops early is greedy search", () => {
    fc.assert(
      fc.property(toys, fc.integer({ min: 1, max: 12 }), (toy, limit) => {
        const config = configOf({ earlyStopping: true, numBeams: 1 });
        const [best] = search(toy, { config, limit }).results;
        const { tokens, reason } = greedy(toy, { config, limit }).result;
        expect(best).toMatchObject({ tokens, reason });
      }),
    );
  });

  test("with enough beams finds the most probable text of all", () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const toy = { seed, vocabulary: 3 };
        const limit = 3;
        const config = configOf({ numBeams: 27, lengthPenalty: 0, earlyStopping: "never" });
        const [best] = search(toy, { config, limit }).results;
        const texts = [[EOS], [1, EOS], [2, EOS]];
        for (const a of [1, 2]) for (const b of [1, 2]) for (const c of [0, 1, 2]) texts.push([a, b, c]);
        const scored = texts.map((tokens) => logProbability(tokens, toy));
        expect(best!.score).toBeCloseTo(Math.max(...scored), 4);
        expect(best!.tokens).toEqual(texts[scored.indexOf(Math.max(...scored))]);
      }),
      { numRuns: 50 },
    );
  });

  test("gives distinct texts, the best first, each with the score that its tokens have", () => {
    fc.assert(
      fc.property(toys, beamOptions, fc.integer({ min: 2, max: 10 }), (toy, options, limit) => {
        const config = configOf({ ...options, numReturnSequences: options.numBeams });
        const { results } = search(toy, { config, limit });
        expect(results).toHaveLength(options.numBeams);
        expect(new Set(results.map(({ tokens }) => tokens.join())).size).toBe(results.length);
        for (const [i, { tokens, score, reason }] of results.entries()) {
          const expected = logProbability(tokens, toy) / tokens.length ** options.lengthPenalty;
          expect(Math.abs(score! / expected - 1)).toBeLessThan(1e-5);
          if (i > 0) expect(score).toBeLessThanOrEqual(results[i - 1]!.score!);
          expect(reason).toBe(tokens.at(-1) === EOS ? "eos" : "length");
          expect(tokens.slice(0, -1)).not.toContain(EOS);
          expect(tokens.length).toBeLessThanOrEqual(limit);
        }
      }),
    );
  });

  test("keeps every rule of the configuration in every text", () => {
    const rules = fc.record({
      noRepeatNgramSize: fc.integer({ min: 1, max: 3 }),
      minNewTokens: fc.integer({ min: 0, max: 5 }),
      forcedBosTokenId: fc.constantFrom(undefined, 2),
      forcedEosTokenId: fc.constantFrom(undefined, EOS),
    });
    fc.assert(
      fc.property(toys, beamOptions, rules, ({ seed, vocabulary }, options, rule) => {
        const limit = 5;
        // With fewer tokens the rules may leave none, which is an error.
        const toy = { seed, vocabulary: vocabulary + 4 };
        const config = configOf({ ...options, ...rule, numReturnSequences: 2 } as GenerationOptions);
        for (const { tokens } of search(toy, { config, limit }).results) {
          const text = [1, ...tokens];
          const size = rule.noRepeatNgramSize;
          // A forced end is put whatever the rules before it say.
          const free = rule.forcedEosTokenId === undefined ? text : text.slice(0, limit);
          const grams = free.slice(size - 1).map((_, i) => free.slice(i, i + size).join());
          expect(new Set(grams).size).toBe(grams.length);
          if (rule.forcedEosTokenId === undefined && tokens.length < limit)
            expect(tokens.length).toBeGreaterThan(rule.minNewTokens);
          if (rule.forcedBosTokenId !== undefined) expect(tokens[0]).toBe(2);
          if (rule.forcedEosTokenId !== undefined) expect(tokens.at(-1)).toBe(EOS);
        }
      }),
    );
  });

  test("ends at a text to stop at, which is not part of what comes out", () => {
    const decode = (ids: number[]): string => ids.map((id) => String.fromCharCode(97 + id)).join("");
    fc.assert(
      fc.property(toys, beamOptions, (toy, options) => {
        const config = configOf({ ...options, stop: ["b", "cd"], numReturnSequences: 2 });
        const growth = search(toy, { config, limit: 8, decode });
        for (const { tokens, text, reason } of growth.results) {
          const whole = decode([...tokens]);
          const at = whole.search(/b|cd/);
          expect(text).toBe(at < 0 ? whole : whole.slice(0, at));
          expect(reason === "stop").toBe(at >= 0);
          if (at >= 0) expect(whole).toMatch(/(b|cd)$/);
        }
        const [best] = growth.results;
        expect(growth.pieces.map(({ token }) => token)).toEqual(best!.tokens);
        expect(growth.pieces.map(({ text }) => text).join("")).toBe(best!.text);
        expect(growth.pieces.at(-1)!.reason).toBe(best!.reason);
      }),
    );
  });

  test("fails where no token is left, and on scores that mean nothing", () => {
    const config = configOf({ numBeams: 2, noRepeatNgramSize: 1, minNewTokens: 9 });
    expect(() => search({ seed: 1, vocabulary: 3 }, { config, limit: 9 })).toThrow("No token is left");
    const growth = new BeamSearch(growthOptions({ config, limit: 3 }));
    expect(() => growth.advance([Float32Array.of(0, Number.NaN, 1)])).toThrow("not finite");
  });
});

describe("beams that are drawn", () => {
  const toy = { seed: 3, vocabulary: 12 };
  const draw = (seed: number, options: GenerationOptions = {}) =>
    search(toy, {
      config: configOf({ numBeams: 3, temperature: 1.5, topK: 0, ...options }),
      limit: 6,
      seed,
    }).results[0]!;

  test("repeat with their seed, and differ without", () => {
    expect(draw(1)).toEqual(draw(1));
    expect(new Set([1, 2, 3, 4, 5, 6].map((seed) => draw(seed).tokens.join())).size).toBeGreaterThan(2);
  });

  test("are drawn as often as their tokens are probable, without replacement", () => {
    const [scores, draws] = [scoresAfter([], toy), 4000];
    const weights = scores.map((score) => Math.exp(score / 1.5));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    // At a limit of one token, the first one drawn is the only text that may end.
    const seen = new Map<number, number>();
    for (let seed = 0; seed < draws; seed++) {
      const config = configOf({ numBeams: 1, temperature: 1.5, topK: 0 });
      const growth = new BeamSearch(growthOptions({ config, limit: 1, seed }));
      growth.advance([scores]);
      const token = growth.results[0]!.tokens[0]!;
      seen.set(token, (seen.get(token) ?? 0) + 1);
    }
    for (const [token, weight] of weights.entries()) {
      const p = weight / total;
      const deviation = Math.sqrt((p * (1 - p)) / draws);
      expect(Math.abs((seen.get(token) ?? 0) / draws - p)).toBeLessThan(4.5 * deviation);
    }
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ForcedBOSTokenLogitsProcessor,
  ForcedEOSTokenLogitsProcessor,
  type LogitsProcessor,
  MinLengthLogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  MinPLogitsWarper,
  NoRepeatNGramLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  TemperatureLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
} from "../../src/generation/logits-processors.ts";
import { orderedKeys, selectTop, topIndices } from "../../src/generation/top-selection.ts";
import { inputScores, outcomeBits, toBits, vectors } from "./vectors.ts";

// biome-ignore lint/suspicious/noExplicitAny: arguments come from JSON
const make: Record<string, (...args: any[]) => LogitsProcessor> = {
  temperature: (temperature) => new TemperatureLogitsWarper(temperature),
  topK: (k, minTokensToKeep) => new TopKLogitsWarper(k, { minTokensToKeep }),
  topP: (p, minTokensToKeep) => new TopPLogitsWarper(p, { minTokensToKeep }),
  minP: (p) => new MinPLogitsWarper(p),
  repetitionPenalty: (penalty) => new RepetitionPenaltyLogitsProcessor(penalty),
  noRepeatNGram: (n) => new NoRepeatNGramLogitsProcessor(n),
  minNewTokens: (promptLength, n, eos) => new MinNewTokensLengthLogitsProcessor(promptLength, n, eos),
};

describe("logits processors agree with transformers bit for bit", () => {
  for (const name of Object.keys(make)) {
    const cases = vectors.processors.filter((recorded) => recorded.name === name);
    it(`${name} (${cases.length} cases)`, () => {
      expect(cases.length).toBeGreaterThan(50);
      for (const recorded of cases) {
        const scores = inputScores(recorded.input);
        make[name]!(...recorded.args).process(recorded.ids, scores);
        expect(toBits(scores), JSON.stringify({ ...recorded, output: undefined, kept: undefined })).toEqual(
          outcomeBits(recorded, inputScores(recorded.input)),
        );
      }
    });
  }
});

describe("logits processors", () => {
  const score = fc.float({ min: -50, max: 50, noNaN: true });
  const scores = fc
    .array(fc.oneof({ weight: 4, arbitrary: score }, fc.constant(-Infinity), fc.constantFrom(0, -0, 1)), {
      minLength: 1,
      maxLength: 60,
    })
    .filter((values) => values.some((value) => value > -Infinity))
    .map((values) => Float32Array.from(values));
  const kept = (values: Float32Array) => [...values.keys()].filter((i) => values[i]! > -Infinity);
  const applied = (processor: LogitsProcessor, values: Float32Array) => {
    const copy = values.slice();
    processor.process([], copy);
    return copy;
  };

  it("selectTop finds the threshold that sorting finds", () => {
    fc.assert(
      fc.property(scores, fc.integer({ min: 1, max: 60 }), (values, k) => {
        fc.pre(k <= values.length);
        const sorted = [...values].sort((a, b) => b - a);
        const { above } = selectTop(orderedKeys(values), k);
        expect(above).toBeLessThan(k);
        const top = applied(new TopKLogitsWarper(k), values);
        for (const [i, value] of values.entries())
          expect(top[i]! > -Infinity).toBe(value > -Infinity && value >= sorted[k - 1]!);
      }),
    );
  });

  it("topP keeps the fewest tokens that reach the probability", () => {
    fc.assert(
      fc.property(scores, fc.double({ min: 0.01, max: 0.99, noNaN: true }), (values, p) => {
        const top = applied(new TopPLogitsWarper(p), values);
        const largest = Math.max(...values);
        const weight = (i: number) => Math.exp(values[i]! - largest);
        const total = [...values.keys()].reduce((sum, i) => sum + weight(i), 0);
        const share = (ids: number[]) => ids.reduce((sum, i) => sum + weight(i), 0) / total;
        const ids = kept(top);
        expect(share(ids)).toBeGreaterThanOrEqual(p - 1e-12);
        const smallest = ids.reduce((a, b) => (weight(a) <= weight(b) ? a : b));
        expect(share(ids.filter((i) => i !== smallest))).toBeLessThan(p + 1e-12);
        const dropped = [...values.keys()].filter((i) => !ids.includes(i));
        for (const i of dropped) expect(values[i]).toBeLessThanOrEqual(values[smallest]!);
      }),
    );
  });

  it("narrow further when the limit is lower, and never lose the best token", () => {
    const narrowing: ((x: number) => LogitsProcessor)[] = [
      (x) => new TopKLogitsWarper(1 + Math.floor(x * 59)),
      (x) => new TopPLogitsWarper(x),
      (x) => new MinPLogitsWarper(1 - x),
    ];
    const unit = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(scores, unit, unit, fc.constantFrom(...narrowing), (values, a, b, processor) => {
        const few = kept(applied(processor(Math.min(a, b)), values));
        const many = kept(applied(processor(Math.max(a, b)), values));
        expect(many).toEqual(expect.arrayContaining(few));
        expect(few.some((i) => values[i] === Math.max(...values))).toBe(true);
      }),
    );
  });

  it("minP keeps as many of the best tokens as it must", () => {
    fc.assert(
      fc.property(scores, fc.integer({ min: 1, max: 5 }), (values, minTokensToKeep) => {
        const ids = kept(applied(new MinPLogitsWarper(1, { minTokensToKeep }), values));
        const possible = values.filter((value) => value > -Infinity).length;
        const best = values.filter((value) => Math.exp(value - Math.max(...values)) === 1).length;
        expect(ids).toHaveLength(Math.max(best, Math.min(minTokensToKeep, possible)));
        const least = Math.min(...ids.map((i) => values[i]!));
        expect(values.filter((value) => value > least).length).toBeLessThanOrEqual(ids.length);
      }),
    );
  });

  it("an end is out of reach before the least length, and a forced token the only one at its place", () => {
    const scoresOf = (processor: LogitsProcessor, length: number): number[] => {
      const values = Float32Array.of(1, 2, 3, 4);
      processor.process(Array<number>(length).fill(0), values);
      return [...values];
    };
    const [none, all] = [-Infinity, [1, 2, 3, 4]];
    expect(scoresOf(new MinLengthLogitsProcessor(3, [1, 9]), 2)).toEqual([1, none, 3, 4]);
    expect(scoresOf(new MinLengthLogitsProcessor(3, [1, 9]), 3)).toEqual(all);
    expect(scoresOf(new ForcedBOSTokenLogitsProcessor(2), 1)).toEqual([none, none, 0, none]);
    expect(scoresOf(new ForcedBOSTokenLogitsProcessor(2), 2)).toEqual(all);
    expect(scoresOf(new ForcedEOSTokenLogitsProcessor(5, [0, 3]), 4)).toEqual([0, none, none, 0]);
    expect(scoresOf(new ForcedEOSTokenLogitsProcessor(5, [0, 3]), 3)).toEqual(all);
    expect(() => scoresOf(new ForcedBOSTokenLogitsProcessor(4), 1)).toThrow(
      "Token 4 is to be forced, and the vocabulary has 4 tokens.",
    );
  });

  it("topIndices are those of a sort, but for what is out", () => {
    fc.assert(
      fc.property(scores, fc.integer({ min: 1, max: 70 }), (values, count) => {
        const sorted = [...values.keys()]
          .filter((i) => values[i]! > -Infinity)
          .sort((a, b) => values[b]! - values[a]! || a - b);
        expect(topIndices(values, count)).toEqual(sorted.slice(0, count));
      }),
    );
  });

  it("work on part of a larger buffer", () => {
    const whole = Float32Array.of(9, 9, 1, 3, 2, 9);
    new TopKLogitsWarper(2).process([], whole.subarray(2, 5));
    expect([...whole]).toEqual([9, 9, -Infinity, 3, 2, 9]);
  });

  it("noRepeatNGram leaves no repeated n-gram possible", () => {
    const ids = fc.array(fc.nat(3), { maxLength: 20 });
    fc.assert(
      fc.property(ids, fc.integer({ min: 1, max: 4 }), (before, n) => {
        const values = new Float32Array(5);
        new NoRepeatNGramLogitsProcessor(n).process(before, values);
        const grams = (all: number[]) => all.slice(n - 1).map((_, i) => all.slice(i, i + n).join());
        for (const [next, value] of values.entries()) {
          const completed =
            before.length >= n - 1 ? [...before.slice(before.length - n + 1), next].slice(-n).join() : "";
          expect(value === -Infinity).toBe(grams(before).includes(completed));
        }
      }),
    );
  });

  it.each([
    [() => new TemperatureLogitsWarper(0), "temperature must be a finite number greater than 0, got 0."],
    [() => new TopKLogitsWarper(0), "topK must be a whole number of at least 1, got 0."],
    [() => new TopPLogitsWarper(1.5), "topP must be from 0 to 1, got 1.5."],
    [
      () => new TopPLogitsWarper(0.5, { minTokensToKeep: 0 }),
      "minTokensToKeep must be a whole number of at least 1, got 0.",
    ],
    [() => new MinPLogitsWarper(-1), "minP must be from 0 to 1, got -1."],
    [
      () => new RepetitionPenaltyLogitsProcessor(Number.NaN),
      "penalty must be a finite number greater than 0, got NaN.",
    ],
    [() => new NoRepeatNGramLogitsProcessor(1.5), "ngramSize must be a whole number of at least 1, got 1.5."],
  ])("reject bad arguments (%#)", (construct, message) => {
    expect(construct).toThrow(message);
  });
});

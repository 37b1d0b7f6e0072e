import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TemperatureLogitsWarper, TopKLogitsWarper } from "../../src/generation/logits-processors.ts";
import { argmax, Sampler } from "../../src/generation/sampler.ts";

const scores = fc
  .array(fc.oneof(fc.float({ min: -20, max: 20, noNaN: true }), fc.constant(-Infinity)), {
    minLength: 1,
    maxLength: 30,
  })
  .filter((values) => values.some((value) => value > -Infinity));

describe("argmax", () => {
  it("is the first of the largest", () => {
    expect(argmax(Float32Array.of(1, 3, 3, 2))).toBe(1);
    expect(argmax(Float32Array.of(-Infinity, -Infinity, -5))).toBe(2);
    expect(argmax(Float32Array.of(-0, 0))).toBe(0);
    fc.assert(
      fc.property(
        scores,
        (values) => argmax(Float32Array.from(values)) === values.indexOf(Math.max(...values)),
      ),
    );
  });
});

describe("Sampler", () => {
  const draws = (sampler: Sampler, logits: number[], count: number) =>
    Array.from({ length: count }, () => sampler.next([], Float32Array.from(logits)));

  it("draws tokens as often as their probabilities say", () => {
    const logits = [0, 1, -Infinity, 2, -1, 1];
    const count = 20_000;
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    const seen = new Array(logits.length).fill(0);
    for (const id of draws(new Sampler({ sample: true, seed: 5 }), logits, count)) seen[id]++;
    let chiSquare = 0;
    logits.forEach((logit, id) => {
      const expected = (count * Math.exp(logit)) / total;
      if (expected > 0) chiSquare += (seen[id] - expected) ** 2 / expected;
      else expect(seen[id]).toBe(0);
    });
    expect(chiSquare).toBeLessThan(18.5); // 4 degrees of freedom, p = 0.001
  });

  it("draws evenly over seeds too: the first draws of successive seeds are spread out", () => {
    const seen = new Array(10).fill(0);
    for (let seed = 0; seed < 5000; seed++)
      seen[draws(new Sampler({ sample: true, seed }), new Array(10).fill(0), 1)[0]!]++;
    const chiSquare = seen.reduce((sum, n) => sum + (n - 500) ** 2 / 500, 0);
    expect(chiSquare).toBeLessThan(27.9); // 9 degrees of freedom, p = 0.001
  });

  it("repeats itself for equal seeds, and continues from a saved state", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), scores, fc.nat(10), (seed, logits, stop) => {
        const whole = draws(new Sampler({ sample: true, seed }), logits, 20);
        const first = new Sampler({ sample: true, seed });
        const before = draws(first, logits, stop);
        const state: readonly number[] = JSON.parse(JSON.stringify(first.state));
        const second = new Sampler({ sample: true, seed: 0 });
        second.restore(state);
        expect([...before, ...draws(second, logits, 20 - stop)]).toEqual(whole);
        expect(whole.every((id) => logits[id]! > -Infinity)).toBe(true);
      }),
    );
  });

  it("differs between seeds, and tells the seed it chose itself", () => {
    const even = new Array(50).fill(0);
    const chosen = new Sampler({ sample: true });
    expect(draws(new Sampler({ sample: true, seed: chosen.seed }), even, 20)).toEqual(
      draws(chosen, even, 20),
    );
    expect(draws(new Sampler({ sample: true, seed: 1 }), even, 20)).not.toEqual(
      draws(new Sampler({ sample: true, seed: 2 }), even, 20),
    );
  });

  it("applies processors in order, drawing or not", () => {
    const processors = [new TemperatureLogitsWarper(0.5), new TopKLogitsWarper(2)];
    const seen = new Set(draws(new Sampler({ sample: true, seed: 1, processors }), [1, 1.1, 0.9, 0], 200));
    expect([...seen].sort()).toEqual([0, 1]);
    const logits = Float32Array.of(1, 3, 2);
    expect(new Sampler({ sample: false, processors }).next([], logits)).toBe(1);
    expect([...logits]).toEqual([-Infinity, 6, 4]);
  });

  it.each([true, false])("says so when scores are broken (sample %s)", (sample) => {
    const sampler = new Sampler({ sample, seed: 1 });
    const next =
      (...values: number[]) =>
      () =>
        sampler.next([], Float32Array.from(values));
    expect(next(1, Number.NaN)).toThrow("The model's scores for the next token are not finite");
    expect(next(Number.NaN, -Infinity)).toThrow("not finite");
    expect(next(1, Infinity)).toThrow("not finite");
    expect(next(-Infinity, -Infinity)).toThrow("No token is left to choose");
    expect(next(0, -Infinity)()).toBe(0);
  });

  it("rejects seeds and states that are none", () => {
    expect(() => new Sampler({ sample: true, seed: -1 })).toThrow(
      "seed must be a whole number from 0 to 2³² − 1, got -1.",
    );
    expect(() => new Sampler({ sample: true, seed: 1 }).restore([1, 2])).toThrow(
      "A sampler's state is 4 whole numbers",
    );
  });
});

import { describe, expect, test } from "vitest";
import { input, op, symbol, type Value } from "../../src/graph/index.ts";
import { dropAttention, dropFeatures, dropSamples, withDropoutNoise } from "../../src/nn/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { seededGenerator } from "../../src/tensor/random.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const [BATCH, HEADS, LENGTH] = [4, 6, 64];
const P = 0.25;

const bits = (shape: readonly number[], seed: number): Tensor => {
  const random = seededGenerator(seed);
  const data = Int32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.next());
  return tensor("int32", shape, data);
};

/** Which weights are kept, [batch, heads, queries, keys]; queries and keys are one sequence, or two. */
async function attentionMask({
  cross = false,
  layer = 1,
  seed = 0,
}: {
  cross?: boolean;
  layer?: number;
  seed?: number;
} = {}): Promise<Uint8Array> {
  const [batch, queries, keys] = [
    symbol("batch"),
    symbol("target"),
    cross ? symbol("source") : symbol("target"),
  ];
  const weights = input("weights", "float32", [batch, 2, HEADS / 2, queries, keys]);
  const noise = (name: string, length: typeof keys): Value =>
    op.reshape(input(name, "int32", [batch, length]), [-1]);
  const rows = [noise("target_noise", queries), ...(cross ? [noise("source_noise", keys)] : [])];
  const y = withDropoutNoise(rows, () => dropAttention(weights, P, layer));
  const shape = [BATCH, 2, HEADS / 2, LENGTH, LENGTH];
  const ones = new Float32Array(BATCH * HEADS * LENGTH * LENGTH).fill(1);
  const { y: dropped } = await evaluate(
    engine(),
    { y },
    {
      weights: tensor("float32", shape, ones),
      target_noise: bits([BATCH, LENGTH], seed),
      ...(cross && { source_noise: bits([BATCH, LENGTH], seed + 1000) }),
    },
  );
  const values = dropped!.data as Float32Array;
  expect(new Set(values)).toEqual(new Set([0, Math.fround(1 / (1 - P))]));
  return Uint8Array.from(values, (value) => (value === 0 ? 0 : 1));
}

/** Pearson's correlation of two masks that keep with probability 1 - p. */
function correlation(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - (1 - P)) * (b[i]! - (1 - P));
  return sum / (a.length * P * (1 - P));
}
const kept = (mask: Uint8Array): number => mask.reduce((a, b) => a + b, 0) / mask.length;

describe("dropout of attention weights", () => {
  test.each([
    ["self-attention", false],
    ["cross-attention", true],
  ])("of %s keeps its share in every head", async (_, cross) => {
    const mask = await attentionMask({ cross });
    // Of 98,304 independent elements the share would deviate by 0.0014.
    expect(Math.abs(kept(mask) - (1 - P))).toBeLessThan(0.01);
    const size = LENGTH * LENGTH;
    for (let head = 0; head < BATCH * HEADS; head++)
      expect(Math.abs(kept(mask.subarray(head * size, (head + 1) * size)) - (1 - P))).toBeLessThan(0.05);
  });

  test("is independent between heads, layers, steps, and of the mask mirrored", async () => {
    const mask = await attentionMask();
    const size = LENGTH * LENGTH;
    const heads = Array.from({ length: HEADS }, (_, i) => mask.subarray(i * size, (i + 1) * size));
    for (const [i, a] of heads.entries())
      for (const b of heads.slice(0, i)) expect(Math.abs(correlation(a, b))).toBeLessThan(0.08);
    expect(Math.abs(correlation(mask, await attentionMask({ layer: 2 })))).toBeLessThan(0.02);
    expect(Math.abs(correlation(mask, await attentionMask({ seed: 1 })))).toBeLessThan(0.02);
    const mirrored = mask.map((_, i) => {
      const [head, query, key] = [Math.floor(i / size), Math.floor(i / LENGTH) % LENGTH, i % LENGTH];
      return mask[head * size + key * LENGTH + query]!;
    });
    expect(Math.abs(correlation(mask, mirrored))).toBeLessThan(0.05);
  });

  test("repeats with its seed", async () => {
    expect(await attentionMask({ seed: 5 })).toEqual(await attentionMask({ seed: 5 }));
  });
});

describe("stochastic depth", () => {
  const SAMPLES = 4096;
  const samples = symbol("samples");
  const x = input("x", "float32", [samples, 3, 2]);
  const noise = input("noise", "int32", [samples]);

  /** Whether each sample is kept. */
  async function keeps(layer: number, seed: number): Promise<Uint8Array> {
    const y = withDropoutNoise([noise], () => dropSamples(x, P, layer));
    const ones = tensor("float32", [SAMPLES, 3, 2], new Float32Array(SAMPLES * 6).fill(1));
    const { y: dropped } = await evaluate(engine(), { y }, { x: ones, noise: bits([SAMPLES], seed) });
    const values = dropped!.data as Float32Array;
    return Uint8Array.from({ length: SAMPLES }, (_, sample) => {
      const kinds = new Set(values.subarray(sample * 6, sample * 6 + 6));
      expect(kinds.size).toBe(1); // all of a sample or nothing
      const [value] = kinds;
      expect([0, Math.fround(1 / (1 - P))]).toContain(value);
      return value === 0 ? 0 : 1;
    });
  }

  test("drops whole samples, its share of them, independently between layers and steps", async () => {
    const mask = await keeps(1, 0);
    expect(Math.abs(kept(mask) - (1 - P))).toBeLessThan(0.03); // four standard deviations
    expect(await keeps(1, 0)).toEqual(mask);
    expect(Math.abs(correlation(mask, await keeps(2, 0)))).toBeLessThan(0.07);
    expect(Math.abs(correlation(mask, await keeps(1, 1)))).toBeLessThan(0.07);
  });

  test("needs noise of one row for each sample", () => {
    const perRow = op.reshape(input("rows", "int32", [samples, 3]), [-1]);
    expect(withDropoutNoise([perRow], () => dropSamples(x, P, 1))).toBe(x);
    expect(withDropoutNoise([noise], () => dropSamples(x, 0, 1))).toBe(x);
    expect(dropSamples(x, P, 1)).toBe(x);
  });
});

describe("where dropouts find their noise", () => {
  const x = input("x", "float32", [symbol("batch"), symbol("target"), 8]);
  const rows = (length: string): Value =>
    op.reshape(input(`${length}_noise`, "int32", [symbol("batch"), symbol(length)]), [-1]);

  test("by the number of rows, and only inside", () => {
    expect(dropFeatures(x, P, 1)).toBe(x);
    expect(withDropoutNoise([rows("source")], () => dropFeatures(x, P, 1))).toBe(x);
    expect(withDropoutNoise([rows("source"), rows("target")], () => dropFeatures(x, P, 1))).not.toBe(x);
    expect(withDropoutNoise([rows("target")], () => dropFeatures(x, 0, 1))).toBe(x);
    expect(dropFeatures(x, P, 1)).toBe(x);
  });

  test("an inner scope replaces the outer one, and an error leaves none behind", () => {
    withDropoutNoise([rows("target")], () => {
      expect(withDropoutNoise([], () => dropFeatures(x, P, 1))).toBe(x);
      expect(dropFeatures(x, P, 1)).not.toBe(x);
    });
    expect(() =>
      withDropoutNoise([rows("target")], () => {
        throw new Error("building failed");
      }),
    ).toThrow("building failed");
    expect(dropFeatures(x, P, 1)).toBe(x);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeExample, encodeExample, leastBytes } from "../../../src/training/prefix-cache/encoding.ts";
import type { KeptDType } from "../../../src/training/prefix-cache/index.ts";
import { anyKept, expectSame, float32, kept } from "./kept.ts";

const roundTrip = (values: readonly number[], dtype: KeptDType): number[] => {
  const example = new Map([["x", float32([values.length], values)]]);
  return [...decodeExample(encodeExample(example, dtype)).get("x")!.data];
};

describe("encodeExample", () => {
  it("keeps float32 bit for bit, with names and shapes in order", () => {
    fc.assert(
      fc.property(anyKept, (values) => {
        const bytes = encodeExample(values, "float32");
        expectSame(decodeExample(bytes), values);
        expect(bytes.length).toBeGreaterThanOrEqual(leastBytes(values, "float32"));
      }),
    );
  });

  it("copies: what is done to the values afterwards does not reach the bytes", () => {
    const values = kept(3);
    const bytes = encodeExample(values, "float32");
    values.get("kept.0")!.data.fill(0);
    expectSame(decodeExample(bytes), new Map([...kept(3)]));
  });

  it("takes the values of a view only, not of the buffer it is cut from", () => {
    const data = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
    const values = new Map([["x", { dtype: "float32", shape: [2], data } as const]]);
    expect([...decodeExample(encodeExample(values, "float32")).get("x")!.data]).toEqual([1, 2]);
    expect([...decodeExample(encodeExample(values, "float16")).get("x")!.data]).toEqual([1, 2]);
  });

  it.each([
    ["float16", 2 ** -11],
    ["bfloat16", 2 ** -8],
  ] as const)("halves the room with %s, and is off by at most %d of the largest value", (dtype, error) => {
    const normal = fc.float({ noNaN: true, min: -60000, max: 60000 });
    fc.assert(
      fc.property(
        fc.array(normal, { minLength: 1, maxLength: 50 }),
        fc.constantFrom(1, 1e-3, 1e-7, 1e-12),
        (values, factor) => {
          const scaled = [...Float32Array.from(values, (value) => value * factor)];
          const limit = error * Math.max(...scaled.map(Math.abs));
          for (const [i, value] of roundTrip(scaled, dtype).entries())
            expect(Math.abs(value - scaled[i]!)).toBeLessThanOrEqual(limit);
        },
      ),
    );
    const wide = new Map([["x", float32([1000], Array(1000).fill(0.3))]]);
    expect(encodeExample(wide, dtype).length).toBeLessThan(2100);
    expect(leastBytes(wide, dtype)).toBe(2000);
  });

  it.each<[string, number[], KeptDType]>([
    ["65520 rounds to infinity in float16", [1.001, 65520], "float16"],
    ["a tensor of values too small for float16", [1.1e-8, -3.3e-6], "float16"],
    ["infinity", [1.001, Infinity], "float16"],
    ["NaN", [1.001, NaN], "bfloat16"],
    ["the largest float32 rounds to infinity in bfloat16", [1.001, 3.4028234663852886e38], "bfloat16"],
  ])("keeps float32 where it does not fit: %s", (_, values, dtype) => {
    expect(roundTrip(values, dtype)).toEqual([...Float32Array.from(values)]);
  });

  it.each<[string, number[], number[], KeptDType]>([
    ["65519 is float16's largest value", [1.001, 65519], [1.0009765625, 65504], "float16"],
    ["small beside large", [1, 1e-9], [1, 0], "float16"],
    ["zeros of either sign", [0, -0], [0, -0], "float16"],
    ["bfloat16 has eight bits", [1.001, -3e38], [1, -3.00405527047391e38], "bfloat16"],
  ])("narrows where it fits: %s", (_, values, expected, dtype) => {
    expect(roundTrip(values, dtype)).toEqual(expected);
  });
});

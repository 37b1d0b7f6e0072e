import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tensor } from "../../src/tensor/index.ts";
import { clipGradNorm } from "../../src/training/clip-grad-norm.ts";
import { fromBits, readVectors, toBits } from "./vectors.ts";

type Case = { shapes: number[][]; maxNorm: number; grads: number[][]; norm: number; clipped: number[][] };

const gradients = (...values: number[][]) =>
  new Map(values.map((data, i) => [`g${i}`, tensor("float32", [data.length], Float32Array.from(data))]));

describe("clipGradNorm", () => {
  it.each(readVectors<Case[]>("clip-grad-norm.json"))(
    "agrees with torch.nn.utils.clip_grad_norm_: shapes $shapes, maxNorm $maxNorm",
    ({ shapes, maxNorm, grads, norm, clipped }) => {
      const map = new Map(shapes.map((shape, i) => [`g${i}`, fromBits(shape, grads[i]!)]));
      expect(Math.abs(clipGradNorm(map, maxNorm) - norm)).toBeLessThanOrEqual(1e-6 * norm);
      clipped.forEach((bits, i) => {
        const expected = fromBits(shapes[i]!, bits).data;
        map.get(`g${i}`)!.data.forEach((value, j) => {
          expect(Math.abs(value - expected[j]!)).toBeLessThanOrEqual(1e-6 * Math.abs(expected[j]!));
        });
      });
      if (norm < maxNorm) expect([...map.values()].map(toBits)).toEqual(grads);
    },
  );

  it("never leaves a norm above maxNorm, nor turns a gradient", () => {
    const values = fc.array(fc.float({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(
        values,
        values,
        fc.float({ min: Math.fround(1e-3), max: 10, noNaN: true }),
        (a, b, maxNorm) => {
          const clipped = gradients(a, b);
          const before = clipGradNorm(clipped, maxNorm);
          const after = clipGradNorm(clipped, 0);
          expect(after).toBeLessThanOrEqual(Math.min(before, maxNorm) * (1 + 1e-6));
          const ratio = Math.min(1, maxNorm / (before + 1e-6));
          clipped.get("g0")!.data.forEach((value, i) => {
            expect(Math.abs(value - a[i]! * ratio)).toBeLessThanOrEqual(1e-6 * Math.abs(a[i]!) + 1e-44);
          });
        },
      ),
    );
  });

  it("only measures with maxNorm 0", () => {
    const map = gradients([3, 0], [4]);
    expect(clipGradNorm(map, 0)).toBe(5);
    expect([...map.get("g0")!.data, ...map.get("g1")!.data]).toEqual([3, 0, 4]);
  });

  it("names the tensors that are not finite and leaves them alone, if asked", () => {
    const map = gradients([1], [Number.NaN], [Infinity]);
    expect(() => clipGradNorm(map, 1, { errorIfNonfinite: true })).toThrow(
      "The gradient is not finite in 2 of 3 tensors, first in g1.",
    );
    expect(map.get("g0")!.data[0]).toBe(1);
  });

  it("spreads a norm that is not finite as PyTorch does, if not asked", () => {
    const map = gradients([1, -2], [Infinity]);
    expect(clipGradNorm(map, 1)).toBe(Infinity);
    expect([...map.get("g0")!.data]).toEqual([0, -0]);
    expect(map.get("g1")!.data[0]).toBeNaN();
  });

  it("rejects a negative maxNorm", () => {
    expect(() => clipGradNorm(gradients([1]), -1)).toThrow("maxNorm must be at least 0");
  });
});

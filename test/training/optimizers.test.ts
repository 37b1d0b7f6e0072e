import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { AdamW, decaysWeight } from "../../src/training/optimizers.ts";
import { fromBits, readVectors, toBits } from "./vectors.ts";

type Case = {
  name: string;
  shapes: number[][];
  options: { eps: number; betas: [number, number]; weightDecay: number };
  initial: number[][];
  steps: { lr: number; grads: number[][]; params: number[][]; paramsTorchSqrt: number[][] }[];
  moments: { exp_avg: number[]; exp_avg_sq: number[] }[];
};

const float32 = (...values: number[]) => tensor("float32", [values.length], Float32Array.from(values));
const named = (tensors: Tensor<"float32">[]) => new Map(tensors.map((t, i) => [`p${i}`, t]));

describe("AdamW agrees with torch.optim.AdamW", () => {
  const cases = readVectors<Case[]>("adamw.json");

  it.each(cases)("$name: every step bit for bit, given a correctly rounded square root", (recorded) => {
    const parameters = recorded.shapes.map((shape, i) => fromBits(shape, recorded.initial[i]!));
    const optimizer = new AdamW(named(parameters), recorded.options);
    for (const { lr, grads, params } of recorded.steps) {
      optimizer.learningRate = lr;
      optimizer.step(named(recorded.shapes.map((shape, i) => fromBits(shape, grads[i]!))));
      expect(parameters.map(toBits)).toEqual(params);
    }
    const state = optimizer.stateDict();
    recorded.moments.forEach(({ exp_avg, exp_avg_sq }, i) => {
      expect(toBits(state.get(`p${i}.exp_avg`) as Tensor<"float32">)).toEqual(exp_avg);
      expect(toBits(state.get(`p${i}.exp_avg_sq`) as Tensor<"float32">)).toEqual(exp_avg_sq);
    });
  });

  it.each(cases)("$name: within 1e-6 of torch as it is", (recorded) => {
    const parameters = recorded.shapes.map((shape, i) => fromBits(shape, recorded.initial[i]!));
    const optimizer = new AdamW(named(parameters), recorded.options);
    for (const { lr, grads, paramsTorchSqrt } of recorded.steps) {
      optimizer.learningRate = lr;
      optimizer.step(named(recorded.shapes.map((shape, i) => fromBits(shape, grads[i]!))));
      paramsTorchSqrt.forEach((bits, i) => {
        const expected = fromBits(recorded.shapes[i]!, bits).data;
        parameters[i]!.data.forEach((value, j) => {
          expect(Math.abs(value - expected[j]!)).toBeLessThanOrEqual(
            1e-6 * Math.max(1, Math.abs(expected[j]!)),
          );
        });
      });
    }
  });
});

describe("AdamW", () => {
  const gradientAt = (step: number, length: number) =>
    Float32Array.from({ length }, (_, i) => Math.sin(step * 12.9898 + i * 78.233));

  it("continues from a saved state exactly where it stopped", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 12 }), (length, stop) => {
        const run = (optimizer: AdamW, from: number, to: number) => {
          for (let t = from; t < to; t++)
            optimizer.step(new Map([["w", tensor("float32", [length], gradientAt(t, length))]]));
        };
        const whole = tensor("float32", [length], gradientAt(99, length));
        run(new AdamW(new Map([["w", whole]])), 0, 12);

        const split = tensor("float32", [length], gradientAt(99, length));
        const before = new AdamW(new Map([["w", split]]));
        run(before, 0, stop);
        const saved = before.stateDict();
        run(before, stop, stop + 1); // must not reach the saved copy
        const resumed = tensor("float32", [length], gradientAt(99, length));
        const replay = new AdamW(new Map([["w", resumed]]));
        run(replay, 0, stop);
        const after = new AdamW(new Map([["w", resumed]]));
        after.loadStateDict(saved);
        expect(after.stepCount).toBe(stop);
        run(after, stop, 12);
        expect(toBits(resumed)).toEqual(toBits(whole));
      }),
    );
  });

  it("does not depend on the order of parameters", () => {
    const make = () =>
      new Map([
        ["a", float32(1, 2)],
        ["b", float32(3)],
      ]);
    const forward = make();
    const backward = new Map([...make()].reverse());
    const gradients = new Map([
      ["b", float32(0.5)],
      ["a", float32(-1, 4)],
    ]);
    new AdamW(forward).step(gradients);
    new AdamW(backward).step(gradients);
    expect(backward.get("a")).toEqual(forward.get("a"));
    expect(backward.get("b")).toEqual(forward.get("b"));
  });

  it("decays only the parameters that `decays` names", () => {
    const parameters = new Map([
      ["x.weight", float32(1)],
      ["x.bias", float32(1)],
    ]);
    const optimizer = new AdamW(parameters, { learningRate: 0.1, weightDecay: 0.5, decays: decaysWeight });
    optimizer.step(
      new Map([
        ["x.weight", float32(0)],
        ["x.bias", float32(0)],
      ]),
    );
    expect(parameters.get("x.weight")!.data[0]).toBe(Math.fround(0.95));
    expect(parameters.get("x.bias")!.data[0]).toBe(1);
  });

  it("chooses the parameters to decay as transformers does", () => {
    const recorded = readVectors<Record<string, boolean>>("decay-names.json");
    expect(Object.fromEntries(Object.keys(recorded).map((name) => [name, decaysWeight(name)]))).toEqual(
      recorded,
    );
  });

  it("lists every bad hyper-parameter", () => {
    expect(
      () =>
        new AdamW(new Map(), { learningRate: -1, betas: [1, Number.NaN], eps: -1, weightDecay: Infinity }),
    ).toThrow(
      "AdamW: learningRate must be a finite number of at least 0, got -1; betas[0] must be in [0, 1), got 1; " +
        "betas[1] must be in [0, 1), got NaN; eps must be a finite number of at least 0, got -1; " +
        "weightDecay must be a finite number of at least 0, got Infinity; there are no parameters",
    );
  });

  it("rejects gradients that do not fit, before changing anything", () => {
    const parameters = new Map([
      ["a", float32(1, 2)],
      ["b", float32(3)],
    ]);
    const optimizer = new AdamW(parameters);
    expect(() => optimizer.step(new Map([["a", float32(1)]]))).toThrow(
      "Gradients and trainable parameters differ: gradient of a has shape [1], its parameter [2]; no gradient for b.",
    );
    expect(() =>
      optimizer.step(
        new Map([
          ["a", float32(1, 1)],
          ["b", float32(1)],
          ["c", float32(1)],
        ]),
      ),
    ).toThrow("c is not a trainable parameter");
    expect(optimizer.stepCount).toBe(0);
    expect([...parameters.get("a")!.data]).toEqual([1, 2]);
  });

  it("rejects a state of other parameters, naming each tensor", () => {
    const state = new AdamW(
      new Map([
        ["old", float32(1)],
        ["same", float32(1, 2)],
      ]),
    ).stateDict();
    state.delete("step");
    const optimizer = new AdamW(
      new Map([
        ["new", float32(1)],
        ["same", float32(1)],
      ]),
    );
    expect(() => optimizer.loadStateDict(state)).toThrow(
      "The optimizer state does not fit the trainable parameters: new.exp_avg is missing; new.exp_avg_sq is missing; " +
        "same.exp_avg is float32 [2], expected float32 [1]; same.exp_avg_sq is float32 [2], expected float32 [1]; " +
        "old.exp_avg belongs to no trainable parameter; old.exp_avg_sq belongs to no trainable parameter; " +
        "step must be an int64 scalar that is not negative.",
    );
  });
});

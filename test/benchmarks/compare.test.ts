import { describe, expect, test } from "vitest";
import { advantage, disagreement, share, valuesOf } from "../../benchmarks/compare.ts";
import { firstEpochs, quantities } from "../../benchmarks/quantities.ts";
import type { CaseResult } from "../../benchmarks/results.ts";
import { caseOf, conditions, resultOf, trained } from "./support.ts";

const steps = caseOf("smollm2-135m/all-linear/4x256");
const epochs = caseOf("smollm2-135m/last-quarter/4x256/epochs-3");
const generation = caseOf("smollm2-135m/generation/1x128+64");

const single = (one: typeof steps, rounds: CaseResult["rounds"]): CaseResult => ({
  case: one,
  conditions,
  rounds,
  missing: {},
});

describe("quantities", () => {
  test("a step is the median after the warm-up", () => {
    const result = single(steps, [{ graft: trained([9, 8, 1, 3, 2]) }]);
    expect(valuesOf(result, "graft", quantities.step)?.median).toBeCloseTo(2, 12);
  });

  test("of several epochs, a step is the median after the first epoch", () => {
    const run = trained([9, 9, 9, 9, 1, 1, 1, 1, 2, 1, 1, 1]);
    expect(valuesOf(single(epochs, [{ graft: run }]), "graft", quantities.step)?.median).toBeCloseTo(1, 12);
  });

  test("epochs are told apart", () => {
    const result = single(epochs, [{ graft: trained([4, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1]) }]);
    const value = (quantity: Parameters<typeof valuesOf>[2]) => valuesOf(result, "graft", quantity)?.median;
    expect(value(quantities.train)).toBe(25);
    expect(value(quantities.firstEpoch)).toBe(13);
    expect(value(quantities.laterEpoch)).toBe(6);
    expect(value(firstEpochs(2))).toBe(21);
    expect(value(quantities.firstStep)).toBe(6); // 2 of them loading
  });

  test("the first repeat of generation warms up", () => {
    const result = resultOf(generation, [{ graft: 30 }]);
    expect(valuesOf(result, "graft", quantities.tokens)?.median).toBe(30);
    expect(valuesOf(result, "graft", quantities.prompt)?.median).toBe(1);
  });
});

describe("ratios", () => {
  // In the second round the machine was half as fast, for both: their ratio is that of the first.
  const rounds = [
    { graft: 1, "torch-float32": 2 },
    { graft: 2, "torch-float32": 4 },
    { graft: 1, "torch-float32": 3 },
  ];

  test("are taken in each round apart", () => {
    const ratio = advantage(resultOf(steps, rounds), quantities.step, ["graft", "torch-float32"])!;
    expect(ratio.median).toBeCloseTo(2, 9);
    expect(ratio.min).toBeCloseTo(2, 9);
    expect(ratio.max).toBeCloseTo(3, 9);
  });

  test("of tokens a second are above 1 where Graft has more", () => {
    const result = resultOf(generation, [{ graft: 30, "torch-float32": 20 }]);
    expect(advantage(result, quantities.tokens, ["graft", "torch-float32"])?.median).toBe(1.5);
  });

  test("of memory are a share", () => {
    const small = trained([1, 1, 1, 1, 1], { peakRssBytes: 1e9 });
    const large = trained([1, 1, 1, 1, 1], { peakRssBytes: 4e9 });
    const result = single(steps, [{ graft: small, "torch-float32": large }]);
    expect(share(result, quantities.memory, ["graft", "torch-float32"])?.median).toBe(0.25);
  });

  test("need both", () => {
    const result = resultOf(steps, [{ graft: 1 }]);
    expect(advantage(result, quantities.step, ["graft", "torch-float32"])).toBeUndefined();
  });
});

describe("different work", () => {
  const compared = (other: ReturnType<typeof trained>, contestant: "torch-float32" | "torch-bfloat16") =>
    single(steps, [{ graft: trained([1, 1, 1, 1, 1]), [contestant]: other }]);

  test("is another number of trained parameters", () => {
    const result = compared({ ...trained([1, 1, 1, 1, 1]), trainableParameters: 11 }, "torch-float32");
    expect(disagreement(result, "torch-float32")).toBe("Graft trains 10 parameters, torch-float32 11");
    expect(advantage(result, quantities.step, ["graft", "torch-float32"])).toBeUndefined();
    expect(valuesOf(result, "torch-float32", quantities.step)).toBeUndefined();
  });

  test("is another loss in any step, as far as the dtype allows", () => {
    const apart = trained([1, 1, 1, 1, 1], { losses: [4, 4, 4, 4, 4.02] });
    expect(disagreement(compared(apart, "torch-float32"), "torch-float32")).toContain("5.0e-3");
    expect(disagreement(compared(apart, "torch-bfloat16"), "torch-bfloat16")).toBeUndefined();
  });

  test("is a loss that is no number", () => {
    const apart = trained([1, 1, 1, 1, 1], { losses: [4, 4, 4, 4, Number.NaN] });
    expect(disagreement(compared(apart, "torch-bfloat16"), "torch-bfloat16")).toContain("NaN");
  });
});

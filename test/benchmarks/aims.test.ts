import { describe, expect, test } from "vitest";
import { aimedCases, aims, verdict } from "../../benchmarks/aims.ts";
import { cases, isTraining, layers } from "../../benchmarks/cases.ts";
import { fitLayers, laterStepFlops } from "../../benchmarks/layers.ts";
import { aimsTable } from "../../benchmarks/tables.ts";
import { caseOf, resultOf, resultsOf } from "./support.ts";

const aim = (name: string) => aims.find((one) => one.name === name)!;
const at = (value: number) => ({ median: value, min: value, max: value });

test("every case that an aim names is measured, with the contestants it compares", () => {
  for (const { ids } of aims)
    for (const id of ids)
      expect(
        cases.map((one) => one.id),
        id,
      ).toContain(id);
  expect(new Set(aims.flatMap(({ ids }) => ids))).toEqual(new Set(aimedCases.map(({ id }) => id)));
});

test("every aim can be read off a full set of results", () => {
  const results = resultsOf(
    ...aimedCases.map((one) =>
      resultOf(one, [
        Object.fromEntries(one.contestants.map((name) => [name, name.startsWith("graft") ? 1 : 2])),
      ]),
    ),
  );
  for (const one of aims) expect(one.measured(results), one.name).toBeDefined();
  expect(aim("florence2-3").measured(results)?.median).toBeCloseTo(2, 9);
  expect(aim("generation-8").measured(results)?.median).toBe(0.5); // tokens a second: more is better
});

describe("what is reached", () => {
  test.each([
    ["all-linear", 1.5, "no"],
    ["all-linear", 1.6, "least"],
    ["all-linear", 2.3, "aim"],
    ["all-linear-memory", 1.1, "no"],
    ["all-linear-memory", 0.9, "least"],
    ["all-linear-memory", 0.5, "aim"],
    ["layers", 2, "least"],
    ["layers", 0.86, "aim"],
    ["layers", 1.14, "aim"],
    ["layers", 1.16, "least"],
  ])("%s at %d: %s", (name, value, expected) => {
    expect(verdict(aim(name), at(value))).toBe(expected);
  });

  test("nothing without a measurement", () => {
    expect(verdict(aim("layers"), undefined)).toBe("not measured");
  });
});

test("the table has a row for each aim, measured or not", () => {
  const result = resultOf(caseOf("smollm2-135m/all-linear/4x256"), [
    { graft: 1, "torch-float32": 1.7 },
    { graft: 1, "torch-float32": 1.9 },
  ]);
  const lines = aimsTable(resultsOf(result)).split("\n");
  expect(lines).toHaveLength(aims.length + 2);
  expect(lines[2]).toMatch(
    /every linear layer.*1\.6× +\| +2× +\| +1\.80× \(1\.70–1\.90×\) \| +the least \|$/,
  );
  expect(lines.at(-1)).toMatch(/generation with cache, batch 8 .*\| +– \| +– \|$/);
});

describe("layers", () => {
  const counts = [1, 2, 4, 8];
  const points = (seconds: (count: number) => number) =>
    counts.map((count) => ({ count, graft: seconds(count), torch: 3 + count, flops: 10 + 5 * count }));

  test("a step that grows as its operations has their slope", () => {
    const fit = fitLayers(points((count) => 2 + count));
    expect(fit.slope / fit.predictedSlope).toBeCloseTo(1, 9);
    expect(fit.points.map(({ predicted }) => predicted)).toEqual([3, 4, 6, 10]);
    expect(fit.torchSlope).toBeCloseTo(1, 9);
  });

  test("a step that does all layers' work anyway grows too little", () => {
    const fit = fitLayers(points((count) => 9 + count / 8));
    expect(fit.slope / fit.predictedSlope).toBeLessThan(0.5);
  });

  test("operations of later steps grow by one layer's forward and backward pass", () => {
    const flops = layers("smollm2-135m").flatMap(({ one }) => (isTraining(one) ? [laterStepFlops(one)] : []));
    const perLayer = (flops[3]! - flops[2]!) / 4;
    expect((flops[4]! - flops[3]!) / 7).toBeCloseTo(perLayer, -3);
    // 1,024 tokens; a layer has 3.5 million weights, and each takes part in two products forward and back
    const weights = 576 * (576 * 2 + 192 * 2 + 1536 * 3);
    const attention = 2 * 2 * 256 * 576 * 3; // two products, full, forward and twice that back
    expect(perLayer / (1024 * (4 * weights + attention))).toBeGreaterThan(0.95);
    expect(perLayer / (1024 * (4 * weights + attention))).toBeLessThan(1.05);
  });
});

import { describe, expect, test } from "vitest";
import { cases } from "../../benchmarks/cases.ts";
import { charts } from "../../benchmarks/charts.ts";
import { performancePage } from "../../benchmarks/page.ts";
import { reasonOf } from "../../benchmarks/rounds.ts";
import { caseOf, resultOf, resultsOf } from "./support.ts";

const everything = resultsOf(
  ...cases.map((one, i) =>
    resultOf(one, [Object.fromEntries(one.contestants.map((name, c) => [name, 1 + c + i / 100]))]),
  ),
);

describe("the page of everything", () => {
  const drawn = charts(everything);
  const page = performancePage(everything, drawn);

  test("has every part", () => {
    for (const title of [
      "What Graft sets out to reach",
      "A step of smollm2-135m",
      "A step of qwen2.5-0.5b",
      "A step of florence2-base",
      "Several epochs of smollm2-135m",
      "Several epochs of florence2-base",
      "Adapted layers of smollm2-135m",
      "Generation with smollm2-135m",
      "What grows with what",
      "Repeat it",
    ])
      expect(page).toContain(`\n## ${title}\n`);
    expect(page).not.toMatch(/undefined|NaN|\[object/);
  });

  test("shows every chart", () => {
    expect(drawn.map(({ file }) => file)).toEqual([
      "performance-speedups.svg",
      "performance-layers.svg",
      "performance-sequence.svg",
    ]);
    for (const { file, alt } of drawn) expect(page).toContain(`![${alt}](${file})`);
  });

  test("has rows of equal width in each table", () => {
    const lines = page.split("\n");
    for (const [i, line] of lines.entries())
      if (line.startsWith("|") && lines[i + 1]?.startsWith("|")) {
        const columns = (text: string) => text.split("|").length;
        expect(columns(lines[i + 1]!), line).toBe(columns(line));
      }
  });
});

test("a page of one case has its tables and nothing else", () => {
  const result = resultOf(
    caseOf("smollm2-135m/qv/4x256"),
    [{ graft: 1, "torch-float32": 1.5, "torch-bfloat16": 1.2 }],
    { "graft-int8": "it is not there" },
  );
  const page = performancePage(resultsOf(result), charts(resultsOf(result)));
  expect(page).toContain("| q and v, r 8, 4 × 256 | 1.00 s |          1.50 s |           1.20 s |");
  expect(page).toContain("- Graft int8: it is not there (smollm2-135m/qv/4x256)");
  expect(page).toMatch(/\| models +\| +1 \| +1 \| 2026-01-02 \| abcdef0123 \| +1 % \|/);
  expect(page).not.toContain("Generation with smollm2-135m");
});

test("work that differs is left out, and said", () => {
  const result = resultOf(caseOf("smollm2-135m/qv/4x256"), [{ graft: 1, "torch-float32": 1.5 }]);
  const [round] = result.rounds;
  const other = { ...round!["torch-float32"]!, trainableParameters: 3 };
  const page = performancePage(resultsOf({ ...result, rounds: [{ ...round, "torch-float32": other }] }), []);
  expect(page).not.toContain("1.50 s");
  expect(page).toContain("- PyTorch float32: Graft trains 10 parameters, torch-float32 3");
});

test.each([
  [
    "x failed (exit 1):\nat f.ts:1\nTrainingError: no option.\n    at y {\n  code: 'z'\n}",
    "TrainingError: no option.",
  ],
  ["x failed (exit 1):\nTraceback\n  File\ntorch.cuda.Error: bad thing", "torch.cuda.Error: bad thing"],
  ["x failed (SIGKILL):", "x failed (SIGKILL):"],
])("a process's last words, %j, come down to the reason", (message, expected) => {
  expect(reasonOf(message)).toBe(expected);
});

test("ratios of other machines stand beside those of this one", () => {
  const one = caseOf("smollm2-135m/all-linear/4x256");
  const here = resultOf(one, [{ graft: 1, "torch-float32": 2 }]);
  const machine = { ...here.conditions.machine, cpu: "another CPU" };
  const there = {
    ...resultOf(one, [{ graft: 1, "torch-float32": 3 }]),
    conditions: { ...here.conditions, machine },
  };
  const page = performancePage(resultsOf(here), [], [resultsOf(there)]);
  expect(page).toContain("another CPU; 2026-01-02 |");
  expect(page).toMatch(/speed over PyTorch float32 +\| +2\.00× +\| +3\.00× +\|/);
  expect(performancePage(resultsOf(here), [])).not.toContain("On other processors");
});

import { type Case, cases } from "../../benchmarks/cases.ts";
import type { Contestant } from "../../benchmarks/contestants.ts";
import type { Measurement } from "../../benchmarks/measure.ts";
import type { CaseResult, Conditions, Results } from "../../benchmarks/results.ts";

export const caseOf = (id: string): Case => cases.find((one) => one.id === id)!;

export const conditions: Conditions = {
  at: "2026-01-02T03:04Z",
  commit: "abcdef0123",
  machine: { cpu: "a CPU", cores: 2, memoryBytes: 8e9, system: "Linux 6" },
  threads: 2,
  storage: "bfloat16",
};

const process = { importSeconds: 1, loadSeconds: 2, peakRssBytes: 1e9, versions: { graft: "1.0.0" } };
const load = { average: 0, busy: 0.01 };

/** A run whose steps take as long as it says. */
export function trained(steps: readonly number[], more: Partial<Measurement & { losses: number[] }> = {}) {
  let end = 0;
  const stepEnds = steps.map((step) => (end += step));
  return { ...process, load, stepEnds, losses: steps.map(() => 4), trainableParameters: 10, ...more };
}

export function generated(tokensPerSecond: number) {
  const repeats = [tokensPerSecond / 2, tokensPerSecond];
  return { ...process, load, tokensPerSecond: repeats, promptSeconds: [2, 1], texts: [[1, 2]] };
}

/** A result of rounds in which each contestant took so many seconds for every step, the same in each step. */
export function resultOf(
  one: Case,
  rounds: readonly { readonly [C in Contestant]?: number }[],
  missing: CaseResult["missing"] = {},
): CaseResult {
  const { work } = one;
  const run = (value: number) =>
    work.kind === "training"
      ? trained(Array<number>(work.batches * work.epochs).fill(value))
      : generated(value);
  return {
    case: one,
    conditions,
    missing,
    rounds: rounds.map((round) =>
      Object.fromEntries(Object.entries(round).map(([name, value]) => [name, run(value)])),
    ),
  };
}

export const resultsOf = (...results: readonly CaseResult[]): Results => ({
  format: 2,
  date: "2026-01-02",
  cases: Object.fromEntries(results.map((result) => [result.case.id, result])),
});

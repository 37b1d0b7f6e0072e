import { mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  latestResults,
  mergeResults,
  resultsElsewhere,
  resultsText,
  writeResults,
} from "../../benchmarks/results.ts";
import { caseOf, resultOf, resultsOf } from "./support.ts";

const [first, second] = [
  caseOf("smollm2-135m/all-linear/4x256"),
  caseOf("smollm2-135m/last-quarter/4x256/epochs-3"),
];

describe("merging", () => {
  const older = resultsOf(resultOf(first, [{ graft: 1 }, { graft: 1 }]), resultOf(second, [{ graft: 2 }]));

  test("replaces what was measured again, and keeps the rest", () => {
    const newer = resultsOf(resultOf(first, [{ graft: 5 }]));
    const merged = mergeResults(older, newer);
    expect(merged.cases[first.id]).toEqual(newer.cases[first.id]);
    expect(merged.cases[second.id]).toEqual(older.cases[second.id]);
  });

  test("has the newer date", () => {
    expect(mergeResults(older, { ...resultsOf(), date: "2026-02-03" }).date).toBe("2026-02-03");
  });

  test("leaves out what another machine measured", () => {
    const result = resultOf(first, [{ graft: 5 }]);
    const machine = { ...result.conditions.machine, cpu: "another CPU" };
    const newer = resultsOf({ ...result, conditions: { ...result.conditions, machine } });
    expect(Object.keys(mergeResults(older, newer).cases)).toEqual([first.id]);
  });

  test("begins with nothing", () => {
    expect(mergeResults(undefined, older)).toEqual(older);
  });
});

describe("files", () => {
  const folder = () => mkdtempSync(join(tmpdir(), "graft-bench-"));

  test("come back as they were, but for digits that mean nothing", () => {
    const directory = folder();
    const results = resultsOf(resultOf(first, [{ graft: 0.12345678901 }]));
    writeResults(directory, results);
    expect(readdirSync(directory)).toEqual(["2026-01-02.json"]);
    const [round] = latestResults(directory)!.cases[first.id]!.rounds;
    expect(round!.graft).toMatchObject({ stepEnds: [0.1234568, 0.2469136, 0.3703704, 0.4938272, 0.6172839] });
    expect(latestResults(directory)!.cases[first.id]!.case).toEqual(first);
  });

  test("have one line for each round", () => {
    const text = resultsText(resultsOf(resultOf(first, [{ graft: 1 }, { graft: 2 }])));
    expect(text.split("\n").filter((line) => line.includes("stepEnds"))).toHaveLength(2);
  });

  test("of the latest date count; other files and older formats don't", () => {
    const directory = folder();
    writeResults(directory, { ...resultsOf(), date: "2026-01-03" });
    writeResults(directory, { ...resultsOf(), date: "2026-01-04" });
    writeFileSync(join(directory, "2026-01-05.json"), '{"conditions": {}}');
    writeFileSync(join(directory, "selection-2026-01-06.json"), '{"format": 2}');
    expect(latestResults(directory)?.date).toBe("2026-01-04");
  });

  test("of other machines are found, the latest of each", () => {
    const directory = folder();
    const on = (cpu: string, date: string) => {
      const result = resultOf(first, [{ graft: 5 }]);
      const machine = { ...result.conditions.machine, cpu };
      return { ...resultsOf({ ...result, conditions: { ...result.conditions, machine } }), date };
    };
    const own = on("a", "2026-01-09");
    for (const one of [on("a", "2026-01-03"), on("b", "2026-01-04"), on("b", "2026-01-05"), own])
      writeResults(directory, one);
    expect(resultsElsewhere(directory, own).map(({ date }) => date)).toEqual(["2026-01-05"]);
    expect(resultsElsewhere(folder(), own)).toEqual([]);
  });

  test("may not be there", () => {
    expect(latestResults(join(folder(), "none"))).toBeUndefined();
    expect(latestResults(folder())).toBeUndefined();
  });
});

import { describe, expect, test } from "vitest";
import { cases, quickCases, scaling } from "../../benchmarks/cases.ts";
import { contestants } from "../../benchmarks/contestants.ts";
import { casesNamed, readOptions, UsageError } from "../../benchmarks/options.ts";
import { selectionOf } from "../../benchmarks/selections.ts";

const ids = (only: readonly string[]) => casesNamed(only).map(({ id }) => id);

describe("--only", () => {
  test("takes everything without it", () => {
    expect(casesNamed([])).toEqual(cases);
  });

  test("takes parts together, and shapes and selections of them", () => {
    expect(ids(["generation"])).toEqual([
      "smollm2-135m/generation/1x128+64",
      "smollm2-135m/generation/8x128+64",
    ]);
    expect(ids(["models", "epochs", "florence2-base", "top-qv"])).toEqual([
      "florence2-base/top-qv/1x768",
      "florence2-base/top-qv/1x768/epochs-10",
    ]);
    expect(ids(["models", "last-layer"])).toEqual([
      "smollm2-135m/last-layer/4x256",
      "qwen2.5-0.5b/last-layer/2x256",
    ]);
  });

  test("takes one case by its name", () => {
    expect(ids(["smollm2-135m/last-8/4x256/epochs-3"])).toEqual(["smollm2-135m/last-8/4x256/epochs-3"]);
  });

  test("takes what the aims need", () => {
    expect(ids(["aims"])).toEqual(readOptions(["--aims"]).cases.map(({ id }) => id));
    expect(ids(["aims"])).toContain("smollm2-135m/last-quarter/4x256/labels-0.25/epochs-3");
  });

  test("refuses what it does not know, and what leaves nothing", () => {
    expect(() => casesNamed(["lost"])).toThrow(UsageError);
    expect(() => casesNamed(["generation", "florence2-base"])).toThrow("leaves nothing to measure");
  });
});

describe("options", () => {
  test("have defaults", () => {
    expect(readOptions([])).toMatchObject({ rounds: 1, storage: "bfloat16", contestants, action: "measure" });
    expect(readOptions(["--quick"]).cases).toEqual(quickCases);
  });

  test.each([
    [["--rounds", "0"], "--rounds takes a whole number"],
    [["--storage", "int4"], "--storage is bfloat16 or float32"],
    [["--quick", "--write"], "--quick has none"],
    [["--quick", "--aims"], "leave out --only"],
    [["--contestants", "graft", "--write"], "leave out --contestants"],
    [["--contestants", "torch-float32"], "has graft"],
    [["--contestants", "graft,tensorflow"], "got tensorflow"],
  ])("%j: %s", (args, message) => {
    expect(() => readOptions(args)).toThrow(message);
  });
});

describe("cases", () => {
  test("have names of their own, and selections that exist", () => {
    for (const list of [cases, quickCases]) {
      expect(new Set(list.map(({ id }) => id)).size).toBe(list.length);
      for (const { shape, selection } of list) expect(selectionOf(shape, selection).title).not.toBe("");
    }
  });

  test("of a scaling series differ in its quantity alone", () => {
    for (const points of Object.values(scaling)) expect(points.length).toBeGreaterThan(2);
    expect(
      scaling.rank.map(({ one: { shape, selection } }) => selectionOf(shape, selection).lora["r"]),
    ).toEqual([4, 16, 64]);
    expect(scaling.parameters.map(({ value }) => Math.round(value / 1e6))).toEqual([27, 135, 494]);
  });

  test("of the last layers name them", () => {
    expect(selectionOf("smollm2-135m", "last-2").lora["layers_to_transform"]).toEqual([28, 29]);
    expect(selectionOf("qwen2.5-0.5b", "last-quarter").lora["layers_to_transform"]).toEqual([
      18, 19, 20, 21, 22, 23,
    ]);
    expect(() => selectionOf("florence2-base", "last-2")).toThrow("no selection last-2");
  });
});

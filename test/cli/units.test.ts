import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loraFlags } from "../../src/cli/adapter-flags.ts";
import { readAdapter } from "../../src/cli/adapter-request.ts";
import { bytes, clock, describeTargets, ranges, shellWord } from "../../src/cli/describe.ts";
import { exitCodeOf, reportOf } from "../../src/cli/errors.ts";
import { FlagProblem, type FlagValues, flagName, parseNumber } from "../../src/cli/flags.ts";
import { toJson } from "../../src/cli/json.ts";
import { spelling } from "../../src/cli/schema-flags.ts";
import {
  CheckpointError,
  DataError,
  GraphError,
  RuntimeFailure,
  TrainingError,
  UsageError,
} from "../../src/errors.ts";

/** No flag of an adapter given. */
const noFlags = Object.fromEntries(Object.keys(loraFlags).map((name) => [name, undefined])) as FlagValues<
  typeof loraFlags
>;

describe("entries of modules", () => {
  const read = loraFlags.targetModules.read;
  test.each([
    [["q_proj,v_proj"], ["q_proj", "v_proj"]],
    [
      ["q_proj", " v_proj"],
      ["q_proj", "v_proj"],
    ],
    [["q_proj,!lm_head,**.mlp.*"], ["q_proj", "!lm_head", "**.mlp.*"]],
    // commas in brackets, and what only looks like brackets
    [["model\\.layers\\.\\d{1,2}\\..*,q_proj"], ["model\\.layers\\.\\d{1,2}\\..*", "q_proj"]],
    [["{q,v}_proj,[a,b]c"], ["{q,v}_proj", "[a,b]c"]],
    [["a\\(,b"], ["a\\(", "b"]],
    [["(q,v"], ["(q,v"]],
  ])("%j", (given, value) => expect(read(given)).toEqual(value));

  test.each([[["a,,b"]], [[""]]])("refuses %j", (given) => expect(() => read(given)).toThrow(FlagProblem));
});

describe("entries that PEFT's options can hold become these", () => {
  test.each([
    [
      ["q_proj", "name:v_proj"],
      ["q_proj", "v_proj"],
    ],
    [["all-linear"], "all-linear"],
    [[".*\\.(q|v)_proj"], ".*\\.(q|v)_proj"],
    [["model\\.layers\\.\\d{1,2}\\..*"], "model\\.layers\\.\\d{1,2}\\..*"],
    [["regex:q_proj"], "q_proj"],
  ])("%j", async (targetModules, expected) => {
    const { config, groups } = await readAdapter(undefined, { ...noFlags, targetModules });
    const { targetModules: names } = config;
    expect([names instanceof Set ? [...names] : names, groups]).toEqual([expected, undefined]);
  });

  test.each([
    [["*_proj"]],
    [["q_proj", ".*v_proj"]],
    [["!q_proj"]],
    [["all-linear", "lm_head"]],
    [["[q,v]_proj"]],
  ])("%j do not", async (targetModules) => {
    const { config, groups } = await readAdapter(undefined, { ...noFlags, targetModules });
    expect([config.targetModules, groups]).toEqual([null, [expect.objectContaining({ targetModules })]]);
  });

  test("layers in PEFT's words beside entries of ours are the group's", async () => {
    const given = { ...noFlags, targetModules: ["*_proj"], layersToTransform: [1, 2], layersPattern: "h" };
    const { config, groups } = await readAdapter(undefined, given);
    expect([config.layersToTransform, groups![0]!.layers]).toEqual([null, new Map([["h", [1, 2]]])]);
  });
});

describe("layers", () => {
  const read = loraFlags.layers.read;
  test.each([
    [["-2:"], ["-2:"]],
    [
      ["0", "last 2"],
      ["0", "last 2"],
    ],
    [["encoder.layers=-2:"], new Map([["encoder.layers", ["-2:"]]])],
    [
      ["a=0", "b = :", "a=!1"],
      new Map([
        ["a", ["0", "!1"]],
        ["b", [":"]],
      ]),
    ],
    [["(?=x)y=1"], new Map([["(?=x)y", ["1"]]])],
  ])("%j", (given, value) => expect(read(given)).toEqual(value));

  test.each([
    [["x"], /"x" is none of/],
    [["a=lats 2"], /closest: "last"/],
    [["=2"], /names no list/],
    [["a=1", "2"], /with the name of a list \(a\) and without one \(2\)/],
    [["a="], /is empty/],
  ])("refuses %j", (given, message) => {
    expect(() => read(given)).toThrow(FlagProblem);
    expect(() => read(given)).toThrow(message);
  });
});

describe("rank patterns", () => {
  const read = loraFlags.rankPattern.read;
  test("keys may be regular expressions with commas and equals signs", () =>
    expect([...read(["q_proj=16, layers\\.\\d{1,2}\\.v_proj=4", "a=b=2"])]).toEqual([
      ["q_proj", 16],
      ["layers\\.\\d{1,2}\\.v_proj", 4],
      ["a=b", 2],
    ]));
  test.each(["q_proj", "=4", "q_proj=x"])("refuses %s", (given) =>
    expect(() => read([given])).toThrow(FlagProblem),
  );
});

describe("describeTargets", () => {
  const layer = (i: number, tail: string): string => `model.layers.${i}.self_attn.${tail}`;
  test.each([
    [
      [layer(4, "q_proj"), layer(4, "v_proj"), layer(5, "q_proj"), layer(5, "v_proj")],
      "q_proj, v_proj in layers 4–5",
    ],
    [
      [layer(0, "q_proj"), layer(2, "q_proj"), layer(2, "v_proj")],
      "q_proj in layers 0, 2; v_proj in layers 2",
    ],
    [["lm_head", layer(1, "k_proj")], "k_proj in layers 1; lm_head"],
    [
      ["encoder.layers.0.q", "encoder.layers.1.q", "decoder.layers.0.q"],
      "q in encoder.layers 0–1; q in decoder.layers 0",
    ],
    [["a.layers.0.x.proj", "a.layers.0.y.proj"], "x.proj, y.proj in layers 0"],
    [[], ""],
  ])("%j", (names, text) => expect(describeTargets(names)).toBe(text));

  test("ranges name every number once, in order", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(30)), (numbers) => {
        const named = ranges(numbers)
          .split(", ")
          .filter((part) => part !== "")
          .flatMap((part) => {
            const [from, to = from] = part.split("–").map(Number) as [number, number?];
            return Array.from({ length: to! - from + 1 }, (_, i) => from + i);
          });
        expect(named).toEqual([...new Set(numbers)].sort((a, b) => a - b));
      }),
    );
  });
});

describe("words and numbers", () => {
  test("numbers are decimal, and nothing else is a number", () => {
    expect(["1e-3", "-2", ".5", "+4", " 7 "].map(parseNumber)).toEqual([1e-3, -2, 0.5, 4, 7]);
    expect(["", "0x10", "1_000", "NaN", "Infinity", "1e", "3 4"].map(parseNumber)).toEqual(
      Array(7).fill(undefined),
    );
  });
  test("sizes and times", () => {
    expect([0, 999, 28_672, 1_500_000].map(bytes)).toEqual(["0 B", "999 B", "28.7 kB", "1.5 MB"]);
    expect([0, 75.4, 3_725].map(clock)).toEqual(["0:00", "1:15", "1:02:05"]);
  });
  test("shell words are quoted where they must be", () =>
    expect(["out/a-b", "my dir", "it's"].map(shellWord)).toEqual(["out/a-b", "'my dir'", "'it'\\''s'"]));
  test("JSON keeps what JSON has no word for", () =>
    expect(
      JSON.parse(toJson({ a: Infinity, b: NaN, c: 3n, d: new Set([1]), e: new Map([["k", 1]]) })),
    ).toEqual({
      a: "Infinity",
      b: "NaN",
      c: 3,
      d: [1],
      e: { k: 1 },
    }));
});

describe("option names in messages", () => {
  const spell = spelling(["maxSteps", "seed"], { evalDataset: "--eval-data or --eval-split" });
  test("become flags where they are known and cannot be words", () => {
    expect(spell("maxSteps and seed need evalDataset; notKnown stays")).toBe(
      "--max-steps and seed need --eval-data or --eval-split; notKnown stays",
    );
    expect(spell("file.maxSteps, maxStepsToo, maxSteps()")).toBe("file.maxSteps, maxStepsToo, maxSteps()");
  });

  test("a long list has one line an item, and the rest stays as it is", () => {
    const modules = Array.from({ length: 1001 }, (_, n) => ({
      n,
      share: n / 0,
      name: `a\n${n}`,
      gone: undefined,
    }));
    const text = toJson({ first: { a: [1] }, gone: undefined, modules, last: "b\nc" });
    const lines = text.split("\n");
    expect(lines).toHaveLength(1011);
    expect(lines.slice(0, 8)).toEqual([
      "{",
      '  "first": {',
      '    "a": [',
      "      1",
      "    ]",
      "  },",
      '  "modules": [',
      '    {"n":0,"share":"NaN","name":"a\\n0"},',
    ]);
    expect(lines.slice(-3)).toEqual(["  ],", '  "last": "b\\nc"', "}"]);
    expect(JSON.parse(text).modules[1000]).toEqual({ n: 1000, share: "Infinity", name: "a\n1000" });
  });
  test("flags are dashed", () =>
    expect(["r", "adamBeta1", "loraAlpha"].map(flagName)).toEqual(["--r", "--adam-beta1", "--lora-alpha"]));
});

describe("exit codes", () => {
  test.each([
    [new UsageError("", { code: "bad-usage" }), 2],
    [new DataError("", { code: "empty" }), 2],
    [new CheckpointError("", { code: "missing-file", details: { errno: "ENOENT" } }), 2],
    [new CheckpointError("", { code: "no-space", details: { errno: "ENOSPC" } }), 1],
    [new CheckpointError("", { code: "network" }), 1],
    [new TrainingError("", { code: "invalid-training-options" }), 2],
    [new TrainingError("", { code: "diverged" }), 1],
    [new TrainingError("", { code: "metrics-write", details: { systemCode: "ENOSPC" } }), 1],
    [new TrainingError("", { code: "output-unwritable", details: { systemCode: "EACCES" } }), 2],
    [new RuntimeFailure("", { code: "unknown-device" }), 2],
    [new RuntimeFailure("", { code: "run-failed" }), 1],
    [new GraphError("", { code: "anything" }), 1],
    [new TypeError("x is not a function"), 1],
  ])("%o", (error, code) => expect(exitCodeOf(error)).toBe(code));

  test("what was not thrown on purpose is called a bug, without a stack", () => {
    const { code, message } = reportOf(new TypeError("x is not a function"));
    expect(code).toBe("internal-error");
    expect(message).toMatch(
      /^this is a bug in graft .*TypeError: x is not a function\nPlease report it.*GRAFT_DEBUG=1/s,
    );
    expect(message).not.toContain("units.test.ts");
  });
});

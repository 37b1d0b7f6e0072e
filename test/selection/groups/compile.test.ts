import { describe, expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import {
  compileSelection,
  type GroupedSelection,
  type GroupSpec,
  type ModuleTree,
  selectTargets,
} from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";

const skeleton = (name: string): ModuleTree => findSkeleton(name, import.meta.filename);
const florence = skeleton("florence2-base");
const llama = skeleton("llama-3.2-1b");
const bart = skeleton("bart-base");

const compile = (
  tree: ModuleTree,
  groups: readonly GroupSpec[],
  more: Omit<GroupedSelection, "groups"> = {},
) => compileSelection(tree, { groups, ...more });
const codes = (tree: ModuleTree, groups: readonly GroupSpec[], more: Omit<GroupedSelection, "groups"> = {}) =>
  compile(tree, groups, more).warnings.map(({ code }) => code);
function failure(tree: ModuleTree, groups: readonly GroupSpec[], more: object = {}): SelectionError {
  try {
    compile(tree, groups, more);
  } catch (error) {
    if (error instanceof SelectionError) return error;
    throw error;
  }
  throw new Error("was not refused");
}
/** Layers of the modules of a group, by what stands before the number. */
function layersOf(modules: readonly string[]): Record<string, number[]> {
  const found: Record<string, number[]> = {};
  for (const name of modules) {
    const [, list, index] = /^(.*?)\.(\d+)\./.exec(name)!;
    found[list!] = [...new Set([...(found[list!] ?? []), Number(index)])];
  }
  return found;
}

describe("the question of huggingface/peft#2165, on Florence-2", () => {
  const compiled = compile(florence, [
    { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": ":" } },
  ]);

  test("last two encoder layers, all decoder layers", () => {
    expect(layersOf(compiled.groups[0]!.modules)).toEqual({
      "model.language_model.encoder.layers": [4, 5],
      "model.language_model.decoder.layers": [0, 1, 2, 3, 4, 5],
    });
    expect(compiled.groups[0]!.modules).toHaveLength(2 * 2 + 6 * 4); // the decoder also has cross attention
    expect(compiled.warnings).toEqual([]);
  });

  test("is one configuration of PEFT that selects the same", () => {
    const names = selectTargets(florence, compiled.config).targets.map(({ name }) => name);
    expect(names).toEqual(compiled.groups[0]!.modules);
    expect(compiled.config).not.toHaveProperty("groups");
    expect(compiled.config).not.toHaveProperty("layers");
    expect(compiled.form).toBe("regex");
  });

  test("tells which entry took what", () => {
    expect(
      compiled.groups[0]!.entries.map(({ entry, kind, matched, modules }) => [
        entry,
        kind,
        matched.length,
        modules.length,
      ]),
    ).toEqual([
      ["q_proj", "name", 18, 14],
      ["v_proj", "name", 18, 14],
    ]);
  });
});

describe("what is PEFT's already stays as it is written", () => {
  test.each([
    [{ targetModules: ["q_proj", "v_proj"] }, { targetModules: ["q_proj", "v_proj"] }, "list"],
    [{ targetModules: "q_proj", r: 4 }, { targetModules: ["q_proj"], r: 4 }, "list"],
    [{ targetModules: "all-linear" }, { targetModules: "all-linear" }, "all-linear"],
    [{ targetModules: [".*\\.(q|v)_proj"] }, { targetModules: ".*\\.(q|v)_proj" }, "regex"],
    [
      { targetModules: ["q_proj"], excludeModules: ["layers.3.self_attn.q_proj"] },
      { targetModules: ["q_proj"], excludeModules: ["layers.3.self_attn.q_proj"] },
      "list",
    ],
  ] as const)("%j", (group, config, form) => {
    const compiled = compile(llama, [group]);
    expect(compiled).toMatchObject({ form, warnings: [] });
    expect(compiled.config).toEqual(config);
  });

  test("layers by number are PEFT's layersToTransform", () => {
    const { config } = compile(llama, [{ targetModules: ["q_proj"], layers: [3, "last 2"] }]);
    expect(config).toMatchObject({ targetModules: ["q_proj"], layersToTransform: [3, 14, 15] });
  });

  test("without targets, PEFT's default for the type of model", () => {
    const { groups } = compile(llama, [{ layers: -1 }]);
    expect(groups[0]!.modules).toEqual([
      "model.layers.15.self_attn.q_proj",
      "model.layers.15.self_attn.v_proj",
    ]);
    expect(failure(skeleton("vit-base"), [{ layers: -1 }]).code).toBe("no-default-targets");
  });
});

describe("entries", () => {
  test("negative ones take away, in any order", () => {
    const take = (...targetModules: string[]) => compile(llama, [{ targetModules }]).groups[0]!.modules;
    const expected = take("q_proj", "v_proj", "o_proj");
    expect(take("!k_proj", "**.self_attn.*")).toEqual(expected);
    expect(take("**.self_attn.*", "!k_proj")).toEqual(expected);
    expect(
      compile(llama, [{ targetModules: "self_attn.*", excludeModules: "k_*" }]).groups[0]!.modules,
    ).toEqual(expected);
  });

  test("negative ones alone take from all linear layers", () => {
    const { groups } = compile(llama, [{ targetModules: ["!**.mlp.*", "!regex:.*\\.[qk]_proj"] }]);
    expect(groups[0]!.modules).toHaveLength(16 * 2);
    expect(
      groups[0]!.entries.map(({ entry, negative, modules }) => [entry, negative, modules.length]),
    ).toEqual([
      ["all-linear", false, 32],
      ["!**.mlp.*", true, 48],
      ["!regex:.*\\.[qk]_proj", true, 32],
    ]);
  });

  test("exclusions of the whole are for all groups", () => {
    const { groups } = compile(
      bart,
      [
        { targetModules: "*_proj", layers: { "encoder.layers": 0 } },
        { targetModules: "fc?", layers: { "decoder.layers": 0 } },
      ],
      { excludeModules: ["fc2", "k_proj"] },
    );
    expect(groups.map(({ modules }) => modules.map((name) => name.split(".").at(-1)))).toEqual([
      ["v_proj", "q_proj", "out_proj"],
      ["fc1"],
    ]);
  });

  test("what modulesToSave trains as a whole is no target", () => {
    const { config, groups } = compile(llama, [{ targetModules: ["*_proj", "lm_head"] }], {
      modulesToSave: ["lm_head"],
    });
    expect(groups[0]!.modules).toHaveLength(16 * 7);
    expect(config.modulesToSave).toEqual(["lm_head"]);
    const seqCls = skeleton("bert-base-seqcls");
    const { groups: headless } = compile(seqCls, [{ targetModules: ["glob:*", "!dense"] }], {
      taskType: "SEQ_CLS",
    });
    expect(headless[0]!.modules).not.toContain("classifier");
  });
});

describe("layers", () => {
  test("apply to every tower by its own length", () => {
    const { groups } = compile(skeleton("qwen2-vl-2b"), [
      { targetModules: ["qkv", "o_proj"], layers: "last 25%" },
    ]);
    expect(layersOf(groups[0]!.modules)).toEqual({
      "model.visual.blocks": [24, 25, 26, 27, 28, 29, 30, 31],
      "model.language_model.layers": [21, 22, 23, 24, 25, 26, 27],
    });
  });

  test.each([
    ["encoder.layers", 4],
    ["model.language_model.encoder.layers", 4],
    ["glob:*.encoder.layers", 4],
    ["(?:en|x)coder\\.layers", 4],
    ["layers", 4 + 8],
    ["language_model.*.layers", 4 + 8],
  ])("of the lists that %j names; nothing outside of them", (pattern, count) => {
    const { groups } = compile(florence, [
      { targetModules: ["q_proj", "v_proj", "qkv", "lm_head"], layers: { [pattern]: "last 2" } },
    ]);
    expect(groups[0]!.modules).toHaveLength(count);
  });

  test("of lists inside of lists", () => {
    const of = (layers: GroupSpec["layers"]) =>
      compile(florence, [{ targetModules: ["window_attn.qkv"], layers }]).groups[0]!.modules.map((name) =>
        name.replace(/^.*blocks\.|\.spatial.*$/g, ""),
      );
    expect(of({ "blocks.2": "last 3" })).toEqual(["2.6", "2.7", "2.8"]);
    expect(of({ "blocks.*": "first 1" })).toEqual(["0.0", "1.0", "2.0", "3.0"]);
    expect(of({ "blocks.#": "first 1" })).toEqual(["0.0", "1.0", "2.0", "3.0"]);
    expect(of({ blocks: 0 })).toEqual(["0.0"]);
    expect(of("last 2").map((name) => name.split(".")[0])).toEqual([...Array(9).fill("2"), "3"]);
    // both lists around a module must agree
    expect(of({ blocks: "2-3", "blocks.*": "-1" })).toEqual(["2.8", "3.0"]);
  });

  test("two names for one list unite, with a warning where they differ", () => {
    const group = (a: string, b: string): GroupSpec => ({
      targetModules: ["q_proj"],
      layers: { "encoder.layers": a, "model.encoder.layers": b },
    });
    expect(layersOf(compile(bart, [group("0", "5")]).groups[0]!.modules)).toEqual({
      "model.encoder.layers": [0, 5],
    });
    expect(codes(bart, [group("0", "5")])).toEqual(["layers-overlap"]);
    expect(codes(bart, [group("5", "-1")])).toEqual([]);
  });

  test("a Map, whose keys keep their order, is as good as an object", () => {
    const { groups } = compile(bart, [
      { targetModules: ["q_proj"], layers: new Map([["encoder.layers", [0, "5"]]]) },
    ]);
    expect(groups[0]!.modules).toHaveLength(2);
  });

  test("modules outside of layers are not taken", () => {
    const { groups } = compile(llama, [{ targetModules: ["lm_head", "q_proj"], layers: "all" }]);
    expect(groups[0]!.modules).toHaveLength(16);
    expect(codes(llama, [{ targetModules: ["lm_head", "q_proj"], layers: "all" }])).toEqual([
      "entry-outside-layers",
    ]);
  });

  test("in a model of one layer", () => {
    const one = {
      ...llama,
      modules: llama.modules.filter(({ name }) => !/layers\.[1-9]/.test(name)),
    };
    expect(compile(one, [{ targetModules: ["q_proj"], layers: "last 4" }]).groups[0]!.modules).toEqual([
      "model.layers.0.self_attn.q_proj",
    ]);
  });
});

describe("ranks", () => {
  const ranksOf = (compiled: {
    selection: { targets: readonly { name: string; r: number; alpha: number }[] };
  }) => Object.fromEntries(compiled.selection.targets.map(({ name, r, alpha }) => [name, [r, alpha]]));

  test("a group's own, else the patterns', else those of the whole", () => {
    const compiled = compile(
      llama,
      [
        { targetModules: ["q_proj", "k_proj"], layers: 0, r: 2 },
        { targetModules: ["up_proj", "down_proj"], layers: 1, loraAlpha: 3 },
      ],
      { r: 16, loraAlpha: 32, rankPattern: { down_proj: 4, k_proj: 64 } },
    );
    expect(ranksOf(compiled)).toEqual({
      "model.layers.0.self_attn.q_proj": [2, 32],
      "model.layers.0.self_attn.k_proj": [2, 32],
      "model.layers.1.mlp.up_proj": [16, 3],
      "model.layers.1.mlp.down_proj": [4, 3],
    });
    expect(compiled.warnings).toMatchObject([
      { code: "rank-pattern-unmatched", details: { keys: ["k_proj"] } },
    ]);
  });

  test("the last group decides where several take a module; a warning only where they disagree", () => {
    const groups = (r: number): GroupSpec[] => [
      { targetModules: ["q_proj"], layers: "first 2", r: 4 },
      { targetModules: ["q_proj", "v_proj"], layers: 1, r },
    ];
    const compiled = compile(llama, groups(6));
    expect(ranksOf(compiled)).toEqual({
      "model.layers.0.self_attn.q_proj": [4, 8],
      "model.layers.1.self_attn.q_proj": [6, 8],
      "model.layers.1.self_attn.v_proj": [6, 8],
    });
    expect(compiled.warnings).toMatchObject([
      { code: "groups-overlap", details: { modules: ["model.layers.1.self_attn.q_proj"] } },
    ]);
    expect(codes(llama, groups(4))).toEqual([]);
  });

  test("other options are kept, and count in the proof", () => {
    const { config, selection } = compile(llama, [{ targetModules: ["q_proj"], layers: "odd", r: 4 }], {
      useRslora: true,
      bias: "lora_only",
      loraDropout: 0.1,
      taskType: "CAUSAL_LM",
    });
    expect(config).toMatchObject({
      useRslora: true,
      bias: "lora_only",
      loraDropout: 0.1,
      taskType: "CAUSAL_LM",
    });
    expect(selection.targets[0]!.scaling).toBe(8 / Math.sqrt(4));
  });
});

describe("warnings", () => {
  test.each([
    [[{ targetModules: ["q_porj", "v_proj"] }], "entry-matched-nothing", /"q_porj".*Closest: "q_proj"/],
    [
      [{ targetModules: ["v_proj", "mlp.*_proj"] }],
      "entry-matched-nothing",
      /Read as a glob it matches 48: write "glob:mlp\.\*_proj"/,
    ],
    [
      [{ targetModules: ["v_proj", "(up|down)_proj"] }],
      "entry-matched-nothing",
      /must match whole names; "\.\*\(\?:\(up\|down\)_proj\)" matches 32/,
    ],
    [
      [{ targetModules: ["v_proj", "model.layers.*.q_proj"] }],
      "entry-matched-nothing",
      /Read as a regex it matches 16/,
    ],
    [[{ targetModules: ["v_proj", "!lm_haed"] }], "negative-removed-nothing", /Closest: "lm_head"/],
    [[{ targetModules: ["all-linear", "!mlp"] }], "negative-removed-nothing", /write "!mlp\.\*\*"/],
    [[{ targetModules: ["v_proj", "*_proj", "!v_proj"] }], "entry-removed", /"v_proj"/],
    [[{ targetModules: ["model.layers.0.**"] }], "entry-unsupported-modules", /LlamaAttention.*LlamaMLP/],
    [
      [{ targetModules: ["q_proj"] }, { targetModules: ["lm_head"], layers: "all" }],
      "no-layers",
      /group 2: layers: none of the matched modules/,
    ],
  ] as const)("%j: %s", (groups, code, message) => {
    const found = (() => {
      try {
        return compile(llama, groups).warnings;
      } catch (error) {
        return (error as SelectionError).details["problems"] as { code: string; message: string }[];
      }
    })();
    expect(found).toContainEqual(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test("an exclusion of the whole that no group notices", () => {
    const groups = [{ targetModules: ["q_proj"] }, { targetModules: ["v_proj"] }];
    expect(codes(llama, groups, { excludeModules: ["k_proj"] })).toEqual(["negative-removed-nothing"]);
    expect(codes(llama, groups, { excludeModules: ["layers.0.self_attn.v_proj"] })).toEqual([]);
  });

  test("a group that takes nothing beside one that does", () => {
    expect(
      codes(llama, [
        { targetModules: ["q_proj"] },
        { targetModules: ["v_proj"], layers: "none", name: "values" },
      ]),
    ).toEqual(["entry-outside-layers", "group-empty"]);
  });

  test("a layer that only some lists have", () => {
    const vl = skeleton("qwen2-vl-2b");
    expect(codes(vl, [{ targetModules: ["qkv", "q_proj"], layers: "0,30" }])).toEqual([
      "layer-not-everywhere",
    ]);
  });
});

describe("errors", () => {
  test("list everything, with the group", () => {
    const error = failure(llama, [
      { targetModules: ["(q_proj"], layers: "x" },
      { name: "values", targetModules: ["v_proj", "[z-a]"], layers: { encodr: "all", layers: "16-17" } },
      { targetModules: [], excludeModules: ["!a"] },
    ]);
    const problems = error.details["problems"] as { code: string; message: string }[];
    expect(problems.map(({ code, message }) => [code, message.split(":")[0]])).toEqual([
      ["invalid-regex", "group 1"],
      ["invalid-layers", "group 1"],
      ["invalid-entry", "group 2 (values)"],
      ["unknown-list", "group 2 (values)"],
      ["layer-out-of-range", "group 2 (values)"],
      ["no-entries", "group 3"],
      ["invalid-entry", "group 3"],
    ]);
    expect(error.message).toContain("which has 0–15 (-16 to -1 from the end)");
  });

  test.each([
    [[{ targetModules: ["q_porj"] }], "no-match", /takes no module.*Closest: "q_proj"/],
    [[{ targetModules: ["q_proj"], layers: "none" }], "no-match", /outside the layers/],
    [[{ targetModules: ["self_attn"] }], "unsupported-module", /LlamaAttention.*write "self_attn\.\*\*"/],
    [[{ targetModules: ["q_proj"], layers: 16 }], "layer-out-of-range", /"16": there is no such layer/],
    [[{ targetModules: ["q_proj"], layers: { layer: 0 } }], "unknown-list", /Closest: "layers"/],
    [[{ targetModules: ["q_proj"], layers: { "!layers": 0 } }], "invalid-layers", /by what it is not/],
    [[{ targetModules: ["q_proj"], layers: {} }], "invalid-layers", /names no list/],
    [[{ targetModules: ["q_proj"], layers: [] }], "invalid-layers", /empty list/],
    [
      [{ targetModules: ["q_proj"], layers: [1.5] }],
      "invalid-layers",
      /whole numbers and expressions, not 1.5/,
    ],
    [[{ targetModules: ["q_proj"], layers: "0, lats 2" }], "invalid-layers", /position 3.*closest: "last"/],
    [[], "no-groups", /at least one group/],
  ] as const)("%j: %s", (groups, code, message) => {
    const error = failure(llama, groups as readonly GroupSpec[]);
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
  });

  test.each(["targetModules", "layersToTransform", "layersPattern", "layerReplication"])(
    "%s beside groups",
    (option) => {
      const error = failure(llama, [{ targetModules: ["q_proj"] }], { [option]: ["x"] });
      expect([error.code, error.message]).toEqual(["groups-conflict", expect.stringContaining(option)]);
    },
  );
});

test("names are literal, whatever is in them", () => {
  const odd = {
    ...llama,
    modules: [
      ...llama.modules,
      { name: "a(b", className: "Linear", kind: "linear" as const, in: 1, out: 1, parameters: [] },
    ],
  };
  expect(compile(odd, [{ targetModules: ["name:a(b"] }]).groups[0]!.modules).toEqual(["a(b"]);
});

describe("hostile input ends in an error", () => {
  const huge = 10 ** 7;
  test.each([
    ["a glob", { targetModules: ["v_proj", "*a".repeat(huge / 2)] }, "invalid-entry"],
    ["a regex", { targetModules: ["v_proj", "(a|b)".repeat(huge / 5)] }, "regex-too-large"],
    ["layers", { targetModules: ["v_proj"], layers: "x,".repeat(huge / 2) }, "invalid-layers"],
    ["the name of a list", { targetModules: ["v_proj"], layers: { ["x".repeat(huge)]: 0 } }, "unknown-list"],
  ])("%s of 10 MB", (_, group, code) => {
    expect(() => compile(llama, [group])).toThrow(
      expect.objectContaining({ code, message: expect.not.stringMatching(/.{2000}/s) }),
    );
  });

  test("a name of 10 MB, and a module of 100 kB, are only not found", () => {
    expect(codes(llama, [{ targetModules: ["v_proj", "a".repeat(huge)] }])).toEqual([
      "entry-matched-nothing",
    ]);
    const long = {
      name: "x".repeat(1e5),
      className: "Linear",
      kind: "linear" as const,
      in: 1,
      out: 1,
      parameters: [],
    };
    const tree = { ...llama, modules: [...llama.modules, long] };
    expect(codes(tree, [{ targetModules: ["**.v_proj", "*a*b*c*d*", "q_porj"] }])).toEqual([
      "entry-matched-nothing",
      "entry-matched-nothing",
    ]);
  });
});

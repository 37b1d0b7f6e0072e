/** What the lint says, and that it is silent on sensible configurations. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  compileSelection,
  lintSelection,
  type ModuleTree,
  mergeWarnings,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { leafOf } from "../../../src/selection/python.ts";
import { makeHybrid, makeTree, skeleton, vectors } from "./support.ts";

const lint = (tree: ModuleTree, config: SelectionConfig) =>
  lintSelection(tree, config).map(({ code, message }) => [code, message] as const);
const llama = skeleton("llama-3.2-1b");
const bart = skeleton("bart-base");
const q = { targetModules: ["q_proj"] } as const;

describe("says what is amiss", () => {
  const t5Root = makeTree(
    ["q", "v"].flatMap((part) => [0, 1].map((layer) => [`layers.${layer}.${part}`, "Linear"] as const)),
  );

  const cases: [ModuleTree, SelectionConfig, string, string | RegExp][] = [
    // entries
    [
      llama,
      { targetModules: ["q_porj", "v_proj"] },
      "entry-matched-nothing",
      'targetModules: "q_porj" matches no module (nearest: "q_proj").',
    ],
    [
      llama,
      { targetModules: ["attn.q_proj", "v_proj"] },
      "entry-matched-nothing",
      'targetModules: "attn.q_proj" matches no module (nearest: "self_attn.q_proj").',
    ],
    [
      llama,
      { targetModules: ["q_proj.weight", "v_proj"] },
      "entry-matched-nothing",
      'targetModules: "q_proj.weight" matches no module: it names a parameter; "q_proj" is the module.',
    ],
    [
      llama,
      { targetModules: ["base_model.model.model.layers.0.self_attn.q_proj", "v_proj"] },
      "entry-matched-nothing",
      /leave out PEFT's own "base_model\.model\."/,
    ],
    [
      llama,
      { targetModules: [".*k_proj", "v_proj"] },
      "entry-is-pattern",
      /^targetModules: "\.\*k_proj" matches no module: entries of a list are plain names/,
    ],
    [
      llama,
      { targetModules: ["all-linear", "v_proj"] },
      "entry-is-pattern",
      /stands for all linear layers only by itself/,
    ],
    [
      llama,
      { targetModules: ["q_proj", "v_proj"], excludeModules: ["v_proj"] },
      "entry-excluded",
      'targetModules: all 16 modules that "v_proj" matches are excluded, by excludeModules or modulesToSave.',
    ],
    [
      bart,
      {
        targetModules: ["encoder_attn.q_proj", "self_attn.k_proj"],
        layersToTransform: [1],
        layersPattern: "encoder.layers",
      },
      "entry-outside-layers",
      'targetModules: "encoder_attn.q_proj" matches 6 modules, but none in the chosen layers [1]: their names have no layer index there.',
    ],
    [
      makeHybrid("M*M*"),
      { targetModules: ["q_proj", "in_proj"], layersToTransform: [2] },
      "entry-outside-layers",
      'targetModules: "q_proj" matches 2 modules, but none in the chosen layers [2]: they are in layers 1,3.',
    ],
    [
      t5Root,
      { targetModules: ["q", "v"], layersToTransform: [1] },
      "entry-outside-layers",
      /PEFT sees a list at the top of the model only with layersPattern: set it to "layers"/,
    ],
    [
      llama,
      { targetModules: ["model.layers.3.self_attn.q_proj", "v_proj"], layersToTransform: [1] },
      "name-bypasses-layers",
      /1 module outside of the chosen layers is taken, such as "model\.layers\.3\.self_attn\.q_proj"/,
    ],
    // layers
    [
      llama,
      { ...q, layersToTransform: [3, 30] },
      "layer-index-unknown",
      "layersToTransform: there is no layer 30; the layers are 0-15.",
    ],
    [
      llama,
      { ...q, layersToTransform: [3, -1] },
      "layer-index-unknown",
      /there is no layer -1; the layers are 0-15\. PEFT does not count from the end: the last is 15\.$/,
    ],
    [
      makeHybrid("M*M*"),
      { ...q, layersToTransform: [1, 2] },
      "layer-without-targets",
      "layersToTransform: no target module is in layer 2; they are in 1,3.",
    ],
    [
      llama,
      { ...q, layersToTransform: [1], layersPattern: ["layer", "layers"] },
      "layers-pattern-unmatched",
      'layersPattern: "layer" names no list of numbered layers (nearest: "layers").',
    ],
    [
      skeleton("florence2-base"),
      { ...q, layersToTransform: [1], layersPattern: ["blocks", "layers"] },
      "layers-pattern-elsewhere",
      /^layersPattern: "blocks" is a list of layers, but nothing that targetModules matches is in it\.$/,
    ],
    [
      bart,
      { ...q, layersToTransform: [1], layersPattern: "encoder.layers|decoder.layers" },
      "layers-pattern-alternation",
      /write "\(\?:encoder\.layers\|decoder\.layers\)", or a list/,
    ],
    [
      bart,
      { ...q, layersToTransform: [1] },
      "layers-in-several-stacks",
      /^layersToTransform counts the layers of model\.encoder\.layers \(1\) and model\.decoder\.layers \(2\) alike\./,
    ],
    // regexes
    [
      llama,
      { targetModules: "self_attn\\.q_proj" },
      "regex-needs-prefix",
      /must match whole names; with "\.\*" in front it matches 16 modules\.$/,
    ],
    [
      llama,
      { targetModules: "self_attn\\.q_proj|.*v_proj" },
      "regex-needs-prefix",
      'targetModules: the alternative "self_attn\\\\.q_proj" of the regex takes no module; with ".*" in front it matches 16 modules.',
    ],
    [
      llama,
      { targetModules: ".*\\.(q_proj|v_porj)" },
      "regex-alternative-unmatched",
      'targetModules: the alternative "v_porj" of the regex takes no module (nearest: "v_proj").',
    ],
    [
      llama,
      { targetModules: ".*\\.(4|5|17)\\..*q_proj" },
      "regex-alternative-unmatched",
      /the alternative "17" of the regex takes no module\.$/,
    ],
    [
      skeleton("mixtral-8x7b"),
      { targetModules: ".*\\.3\\..*q_proj" },
      "regex-becomes-list",
      /so it also takes 31 modules that it does not match, such as "model\.layers\.0\.self_attn\.q_proj"/,
    ],
    // exclusions, saved modules, parameters
    [
      llama,
      { ...q, excludeModules: ["q_porj"] },
      "exclude-matched-nothing",
      'excludeModules: "q_porj" excludes nothing (nearest: "q_proj").',
    ],
    [
      llama,
      { targetModules: ["q_proj", "v_proj"], excludeModules: ["k_porj", "v_proj"] },
      "exclude-entry-unmatched",
      /^excludeModules: "k_porj" excludes nothing/,
    ],
    [
      llama,
      { ...q, excludeModules: "layers\\.0.*" },
      "exclude-matched-nothing",
      /with "\.\*" in front it matches \d+ modules/,
    ],
    [
      llama,
      { ...q, excludeModules: ["layers.0"] },
      "exclude-not-recursive",
      /excludes "model\.layers\.0", which no target is, but not what is inside: 1 target, such as "model\.layers\.0\.self_attn\.q_proj"\. To exclude those too, use the regex "\.\*layers\\\.0\\\.\.\*"\.$/,
    ],
    [
      llama,
      { ...q, modulesToSave: ["nrom"] },
      "save-entry-unmatched",
      'modulesToSave: "nrom" is the end of no module\'s name (nearest: "norm"); PEFT saves nothing for it.',
    ],
    [
      skeleton("edge-gpt-oss"),
      { ...q, targetParameters: ["experts.gate_up_proj", "experts.gate"] },
      "parameter-entry-unmatched",
      'targetParameters: "experts.gate" is no parameter.',
    ],
    [
      skeleton("edge-gpt-oss"),
      { ...q, targetParameters: ["o_proj"] },
      "parameters-unmatched",
      /"o_proj" is no parameter but a module/,
    ],
    // rank patterns
    [
      llama,
      { ...q, rankPattern: { q_porj: 4 } },
      "rank-pattern-unmatched",
      'rankPattern: "q_porj" matches no targeted module (nearest: "q_proj").',
    ],
    [
      llama,
      { ...q, rankPattern: { "^q_proj": 4 } },
      "rank-pattern-unmatched",
      /"\^" stands for the start of the whole name, such as "model\.layers\.0\.self_attn\.q_proj"; leave it out/,
    ],
    [
      llama,
      { ...q, rankPattern: { k_proj: 4 } },
      "rank-pattern-unmatched",
      /it matches 16 modules that are not targeted, such as "model\.layers\.0\.self_attn\.k_proj"/,
    ],
    [
      llama,
      { ...q, alphaPattern: { _proj: 4 } },
      "alpha-pattern-unmatched",
      /"\.\*_proj" would match 16 targets/,
    ],
    [
      llama,
      { ...q, alphaPattern: { "base_model.model.model.layers.0.self_attn.q_proj": 4 } },
      "alpha-pattern-unmatched",
      /"model\.layers\.0\.self_attn\.q_proj" would: keys are names of the model's own modules/,
    ],
    [
      llama,
      { ...q, alphaPattern: { q_proj: 4, "self_attn.q_proj": 2 } },
      "alpha-pattern-shadowed",
      /"self_attn\.q_proj" has no effect, because an earlier key matches all of its targets, such as "q_proj"/,
    ],
    // coverage
    [
      makeHybrid("MMMM*MMMMM-MMM*M"),
      { targetModules: ["q_proj", "v_proj"] },
      "layer-kinds-without-adapters",
      "backbone.layers: only 2 of 16 layers (13 %) hold an adapter. Layers 0-3,5-13,15 are of another kind; their linear layers are called in_proj, x_proj, up_proj, down_proj.",
    ],
    [
      skeleton("clip-vit-b32"),
      q,
      "several-towers",
      /^"q_proj" matches in towers of different kinds: text_model\.encoder\.layers \(language, 12\), vision_model\.encoder\.layers \(vision, 12\)\. .*excludeModules "\.\*vision_model\\\.\.\*"\.$/,
    ],
    // kinds
    [
      llama,
      { targetModules: ["q_proj", "mlp", "norm"] },
      "unsupported-module-type",
      "16 LlamaMLPs are matched but cannot carry LoRA: model.layers.{0-15}.mlp.",
    ],
    [
      skeleton("mamba-130m"),
      { targetModules: ["in_proj", "out_proj"] },
      "mamba-incompatible",
      /^24 Linears are matched but cannot be adapted/,
    ],
  ];
  test.each(cases.map((row) => [`${row[0].name} ${JSON.stringify(row[1])}`, ...row] as const))(
    "%s",
    (_, tree, config, code, message) => {
      const found = lint(tree, config);
      const same = found.filter((warning) => warning[0] === code);
      expect(same, JSON.stringify(found)).not.toEqual([]);
      if (typeof message === "string") expect(same[0]![1]).toBe(message);
      else expect(same[0]![1]).toMatch(message);
    },
  );

  test("all modules that cannot be adapted, not only the first", () => {
    expect(lint(llama, { targetModules: ["q_proj", "mlp", "norm"] })).toEqual([
      ["unsupported-module-type", "16 LlamaMLPs are matched but cannot carry LoRA: model.layers.{0-15}.mlp."],
      ["unsupported-module-type", "1 LlamaRMSNorm is matched but cannot carry LoRA: model.norm."],
    ]);
  });

  test("of very many entries that match nothing, the first few one by one", () => {
    const targetModules = ["q_proj", ...Array.from({ length: 5000 }, (_, i) => `name_${i}`)];
    const found = lint(llama, { targetModules });
    expect(found).toHaveLength(9);
    expect(found[8]).toEqual([
      "entry-matched-nothing",
      'targetModules: 4992 more entries match no module, such as "name_8".',
    ]);
  });

  test("of what PEFT warns of, once, in more detail", () => {
    const config = { ...q, rankPattern: { k_proj: 4 }, fanInFanOut: true };
    const selection = selectTargets(llama, config);
    expect(selection.warnings.map(({ code }) => code)).toEqual([
      "fan-in-fan-out-set-false",
      "rank-pattern-unmatched",
    ]);
    const merged = mergeWarnings(selection.warnings, lintSelection(llama, config, selection));
    expect(merged.map(({ code }) => code)).toEqual(["fan-in-fan-out-set-false", "rank-pattern-unmatched"]);
    expect(merged[1]!.message).toContain("that are not targeted");
  });
});

describe("is silent where all is well", () => {
  /** Ordinary choices of which something is worth saying. */
  const documented: Readonly<Record<string, readonly string[]>> = {
    "all-linear-includes-head": [
      "bert-base-seqcls",
      "deberta-v3-small",
      "distilbert-base",
      "edge-bert-tok",
      "edge-llama-seqcls",
      "edge-wav2vec2",
      "roberta-base-seqcls",
      "vit-base",
    ],
    "several-towers": ["clip-vit-b32", "edge-siglip", "florence2-base", "qwen2-vl-2b"],
    "mamba-incompatible": ["mamba-130m"],
    // PEFT's own keys for fused experts
    "rank-pattern-unmatched": ["mixtral-8x7b", "olmoe-1b-7b"],
    "alpha-pattern-unmatched": ["mixtral-8x7b", "olmoe-1b-7b"],
  };
  const names = readdirSync(join(vectors, "skeletons")).map((name) => name.replace(".json.gz", ""));
  const isDocumented = (code: string, name: string) => documented[code]?.includes(name) ?? false;
  const usual = [
    ["q_proj", "v_proj"],
    ["query", "value"],
    ["q", "v"],
    ["query_key_value"],
    ["c_attn"],
    ["qkv_proj"],
    ["q_lin", "v_lin"],
    ["query_proj", "value_proj"],
    ["qkv"],
    ["in_proj"],
    ["convolution"],
  ];

  test.each(names)("%s", (name) => {
    const tree = skeleton(name);
    const leaves = new Set(tree.modules.map((module) => leafOf(module.name)));
    const attention = usual.find((entries) => entries.every((entry) => leaves.has(entry)))!;
    for (const targetModules of [null, attention, "all-linear"]) {
      const undocumented = lint(tree, { targetModules }).filter(([code]) => !isDocumented(code, name));
      expect(undocumented).toEqual([]);
    }
  });

  test("every documented exception occurs", () => {
    for (const [code, models] of Object.entries(documented))
      for (const name of models)
        expect(
          lint(skeleton(name), { targetModules: "all-linear" }).map((warning) => warning[0]),
          name,
        ).toContain(code);
  });

  const fine: [ModuleTree, SelectionConfig][] = [
    [llama, { ...q, layersToTransform: [0, 15] }],
    [bart, { ...q, layersToTransform: [1], layersPattern: "encoder.layers" }],
    [bart, { ...q, layersToTransform: [1], layersPattern: ["encoder.layers", "decoder.layers"] }],
    [llama, { targetModules: ".*\\.(4|5)\\..*\\.(q|k)_proj|lm_head" }],
    [llama, { targetModules: "(?:.*\\.)?(?!x)(q_proj|y)+".replace("|y", "|v_proj") }],
    [llama, { targetModules: "all-linear", excludeModules: ["lm_head", "down_proj"] }],
    [llama, { ...q, modulesToSave: ["embed_tokens", "lm_head"] }],
    [llama, { ...q, rankPattern: { "layers.0.self_attn.q_proj": 4, q_proj: 2 } }],
    // layers that are chosen by number, whatever their kind
    [makeHybrid("MM*-MM*-"), { ...q, layersToTransform: [2] }],
    [makeHybrid("MM*-MM*-"), { targetModules: ".*\\.2\\..*q_proj" }],
    [makeHybrid("MM*-MM*-"), { targetModules: "all-linear" }],
    // one dense layer before experts is nobody's oversight
    [makeHybrid("-***********"), q],
    [skeleton("clip-vit-b32"), { targetModules: ".*\\.q_proj" }],
    [skeleton("clip-vit-b32"), { ...q, excludeModules: ".*vision_model\\..*" }],
    [skeleton("bert-base-seqcls"), { targetModules: "all-linear", taskType: "SEQ_CLS" }],
  ];
  test.each(fine.map((row) => [`${row[0].name} ${JSON.stringify(row[1])}`, ...row] as const))(
    "%s",
    (_, tree, config) => {
      expect(lint(tree, config)).toEqual([]);
    },
  );
});

test("an alternative that is said to take nothing can be left out", () => {
  const part = fc.constantFrom(
    "q_proj",
    "v_proj",
    "k_porj",
    "fc1",
    "[qk]_proj",
    "x(y|q_proj)?",
    "self_attn\\.(q|x)_proj",
    "",
  );
  const names = bart.modules.map(({ name }) => name);
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 2, maxLength: 4 }),
      fc.constantFrom(".*\\.", ".*", "(?:.*\\.)?"),
      (parts, front) => {
        const pattern = `${front}(${parts.join("|")})`;
        const select = (targetModules: string) => {
          try {
            return selectTargets(bart, { targetModules }).targets.map(({ name }) => name);
          } catch {
            return undefined;
          }
        };
        const all = select(pattern);
        fc.pre(all !== undefined);
        const dead = lintSelection(bart, { targetModules: pattern }).filter(
          ({ code }) => code === "regex-alternative-unmatched",
        );
        const tops = new Set(dead.map(({ details }) => details["alternative"] as string));
        const kept = parts.filter((alternative) => !tops.has(alternative));
        expect(select(`${front}(${kept.join("|")})`)).toEqual(all);
        // and those that are kept are needed by some name, unless another takes it too
        for (const alternative of kept)
          expect(select(`${front}(${alternative})`)?.some((name) => names.includes(name))).toBe(true);
      },
    ),
    { numRuns: 150 },
  );
});

describe("groups", () => {
  const florence = skeleton("florence2-base");

  test("say themselves what their entries do; towers and layer kinds are looked at", () => {
    const everywhere = compileSelection(florence, { groups: [{ targetModules: "all-linear" }] });
    expect(lintSelection(florence, everywhere).map(({ code }) => code)).toEqual(["several-towers"]);
    const chosen = compileSelection(florence, {
      groups: [
        { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": ":" } },
      ],
      modulesToSave: ["nothing_of_the_kind"],
    });
    expect(lintSelection(florence, chosen).map(({ code }) => code)).toEqual(["save-entry-unmatched"]);
    const hybrid = makeHybrid("MMMM*MM");
    expect(lintSelection(hybrid, compileSelection(hybrid, { groups: [q] })).map(({ code }) => code)).toEqual([
      "layer-kinds-without-adapters",
    ]);
    expect(lintSelection(hybrid, compileSelection(hybrid, { groups: [{ ...q, layers: "4" }] }))).toEqual([]);
  });
});

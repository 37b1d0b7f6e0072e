import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LoraConfig } from "../../src/adapters/config.ts";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { autoMappingOf, savedPatterns } from "../../src/adapters/config-saved.ts";
import { AdapterError } from "../../src/errors.ts";
import { compile } from "../../src/regex/index.ts";
import { type ModuleTree, selectTargets, Tuple } from "../../src/selection/index.ts";

const failure = (action: () => unknown): AdapterError => {
  try {
    action();
  } catch (error) {
    if (error instanceof AdapterError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
};
/** Options that the compiler would refuse. */
const loose = (options: object): AdapterError => failure(() => new LoraConfig(options as LoraConfigOptions));

describe("new LoraConfig", () => {
  it("has PEFT's names and defaults", () => {
    const config = new LoraConfig();
    expect(config).toMatchObject({ r: 8, loraAlpha: 8, loraDropout: 0, bias: "none", initLoraWeights: true });
    expect(config).toMatchObject({
      targetModules: null,
      taskType: null,
      rankPattern: new Map(),
      loftqConfig: {},
    });
  });

  it("ignores undefined, as a command line passes it", () => {
    expect(new LoraConfig({ r: undefined, taskType: undefined }).toJSON()).toEqual(new LoraConfig().toJSON());
  });

  it.each([
    [{ r: "16" }, 'LoraConfig: r must be a whole number of at least 0, not "16". Write 16, without quotes.'],
    [
      { r: 2.5 },
      "LoraConfig: r must be a whole number of at least 0, not 2.5. Leave it out for the default, 8.",
    ],
    [{ r: -1 }, "r must be a whole number of at least 0, not -1."],
    [{ loraAlpha: Number.NaN }, "loraAlpha must be a finite number, not NaN."],
    [{ loraDropout: 1 }, "loraDropout must be a number of at least 0 and less than 1, not 1."],
    [
      { bias: "lora" },
      'bias must be "none", "all" or "lora_only", not "lora". Leave it out for the default, "none".',
    ],
    [{ bias: "lora-only" }, 'not "lora-only". Closest: "lora_only".'],
    [{ useRslora: "true" }, 'useRslora must be true or false, not "true". Write true, without quotes.'],
    [
      { modulesToSave: "lm_head" },
      'modulesToSave must be a list of names or null, not "lm_head". Write ["lm_head"].',
    ],
    [
      { targetModules: [1] },
      "targetModules must be a list of names, a string (a regex of whole names), or null, not [1].",
    ],
    [{ initLoraWeights: "gausian" }, 'not "gausian". Closest: "gaussian".'],
    [{ initLoraWeights: "pissa_niter_x" }, 'Closest: "pissa_niter_4".'],
    [{ taskType: "CAUSAL" }, 'not "CAUSAL". '],
    [{ layersToTransform: [0.5] }, "layersToTransform must be a layer number"],
    [
      { rankPattern: { q: 0 } },
      'rankPattern must be an object of patterns and whole numbers of at least 1, or null, not {"q":0}.',
    ],
    [{ layerReplication: [[1, 2, 3]] }, "layerReplication must be a list of [start, end] pairs"],
    [{ trainableTokenIndices: { wte: 3 } }, "trainableTokenIndices must be a list of token numbers"],
    [{ lora_alpha: 16 }, "there is no option lora_alpha (given 16). Use loraAlpha."],
    [{ rank: 4 }, "there is no option rank (given 4). Use r."],
    [{ targetModule: ["q"] }, 'there is no option targetModule (given ["q"]). Use targetModules.'],
    [{ runtimeConfig: {} }, "there is no option runtimeConfig"],
    [{ zzzzzzzzzzzzzzzz: {} }, "there is no option zzzzzzzzzzzzzzzz (given {}). Leave it out."],
    [{ evaConfig: { rhoo: 2 } }, "there is no option evaConfig.rhoo (given 2). Use rho."],
    [{ evaConfig: { rho: 0.5 } }, "evaConfig.rho must be a number of at least 1, not 0.5."],
    [
      { targetModules: "all-linear", layersToTransform: 0 },
      'layersToTransform cannot be used when targetModules is a string (given layersToTransform 0, targetModules "all-linear"). Put',
    ],
    [{ layersPattern: "h" }, "layersPattern needs layersToTransform"],
    [{ useDora: true, loraBias: true }, "loraBias cannot be combined with useDora"],
    [{ initLoraWeights: "loftq" }, 'initLoraWeights "loftq" needs loftqConfig'],
  ])("refuses %j", (options, message) => {
    const error = loose(options);
    expect(error.message).toContain(message);
    expect(error.details["problems"]).toHaveLength(1);
  });

  it("refuses what is not an object of options", () => {
    expect(loose([]).message).toBe("LoraConfig takes an object of options, not []. For example { r: 8 }.");
  });

  it("lists all problems at once, as data too", () => {
    const error = loose({ r: 1.5, target_modules: ["q"], layersPattern: "h", useDora: 1 });
    expect(error.message.split("\n").map((line) => line.slice(0, 26))).toEqual([
      "LoraConfig has 4 problems:",
      "- r must be a whole number",
      "- useDora must be true or ",
      "- there is no option targe",
      "- layersPattern needs laye",
    ]);
    expect(error.code).toBe("invalid-value");
    expect(error.details["problems"]).toMatchObject([
      { field: "r", code: "invalid-value", value: 1.5 },
      { field: "useDora", value: 1 },
      { field: "target_modules", code: "unknown-option", remedy: "Use targetModules." },
      { field: "layersPattern", code: "layers-pattern-without-layers", value: "h" },
    ]);
  });

  it("has types that refuse what it refuses", () => {
    // @ts-expect-error names are in camelCase
    expect(() => new LoraConfig({ lora_alpha: 8 })).toThrow("Use loraAlpha");
    // @ts-expect-error one of three
    expect(() => new LoraConfig({ bias: "some" })).toThrow("bias must be");
  });

  it("cannot be changed, nor through what it was made of", () => {
    const targetModules = ["q_proj"];
    const config = new LoraConfig({ targetModules });
    targetModules.push("k_proj");
    expect(config.targetModules).toEqual(new Set(["q_proj"]));
    expect(() => Object.assign(config, { r: 4 })).toThrow(TypeError);
  });
});

describe("with", () => {
  it("changes some fields and keeps the rest, unknown members of a file included", () => {
    const file = { peft_type: "LORA", r: 4, of_the_future: [1], target_modules: ["q"] };
    const config = LoraConfig.fromJSON(file).with({ inferenceMode: true, loraAlpha: 2 });
    expect(config.toJSON()).toMatchObject({ ...file, inference_mode: true, lora_alpha: 2 });
    expect(config.warnings).toHaveLength(1);
  });

  it("checks what is changed, but not what PEFT let through in the file", () => {
    const config = LoraConfig.fromJSON({ r: 0, bias: "x_only", rank_pattern: { q: 4 } });
    expect(config.with({ loraAlpha: 1 })).toMatchObject({ r: 0, bias: "x_only" });
    expect(failure(() => config.with({ r: -1 })).message).toContain("r must be");
    expect(failure(() => config.with({ rr: 1 } as object)).message).toContain("Use r.");
    expect(failure(() => config.with({ targetModules: "a", layersToTransform: 1 })).code).toBe(
      "regex-with-layers-to-transform",
    );
  });

  it("takes the configuration that a selection ends with", () => {
    const tree: ModuleTree = {
      name: "m",
      modelType: "m",
      className: "M",
      config: {},
      isPretrainedModel: true,
      inputEmbeddings: null,
      outputEmbeddings: null,
      seqClsHeads: [],
      modules: ["", "a", "b"].map((name) =>
        name === ""
          ? { name, className: "M", kind: "module", in: null, out: null, parameters: [] }
          : { name, className: "Linear", kind: "linear", in: 2, out: 2, parameters: [["weight", [2, 2]]] },
      ),
      tiedWeights: [],
      tiedWithEmbedding: [],
      duplicateModules: [],
      numParameters: 8,
    } as unknown as ModuleTree;
    const config = new LoraConfig({ targetModules: "all-linear", evaConfig: { rho: 3 }, revision: "x" });
    const selection = selectTargets(tree, config.toSelection());
    const after = config.with({ ...selection.config, baseModelNameOrPath: "m" });
    expect(after.targetModules).toEqual(new Set(["a", "b"]));
    expect(after).toMatchObject({ baseModelNameOrPath: "m", revision: "x", evaConfig: { rho: 3 } });
  });
});

describe("fromJSON", () => {
  const of = (json: unknown) => failure(() => LoraConfig.fromJSON(json, { file: "out/adapter_config.json" }));

  it("names file and member, in the file's spelling", () => {
    const error = of({ peft_type: "LORA", lora_alpha: "16", use_dora: 3, target_modules: {}, r: null });
    expect(error.message).toBe(
      [
        "out/adapter_config.json has 4 problems:",
        '- lora_alpha must be a finite number, not "16". Write 16, without quotes.',
        "- use_dora must be true or false, not 3. Leave it out for the default, false.",
        "- target_modules must be a list of names, a string (a regex of whole names), or null, not {}. Leave it out for the default, null.",
        "- r must be a whole number, not null. Leave it out for the default, 8.",
      ].join("\n"),
    );
    expect(error.details).toMatchObject({
      file: "out/adapter_config.json",
      problems: [{ field: "lora_alpha" }, {}, {}, {}],
    });
    expect(of({ layers_pattern: "h" }).message).toContain("layers_pattern needs layers_to_transform");
    expect(of({ eva_config: { label_mask_value: "x" } }).message).toContain(
      "eva_config.label_mask_value must be",
    );
  });

  it.each([
    [{ peft_type: "IA3" }, "this is an adapter of PEFT's method IA3; Graft reads LORA only."],
    [{ peft_type: "ADALORA", r: 8 }, "this is an adapter of PEFT's method ADALORA;"],
    [{ peft_type: "lora" }, 'peft_type "lora" is no method of PEFT 0.21. Closest: "LORA".'],
    [{ peft_type: 3 }, 'peft_type 3 is no method of PEFT 0.21. Graft reads "LORA".'],
    [
      { model_type: "llama", hidden_size: 8 },
      'this is not an adapter\'s configuration: it has no peft_type and no field of LoRA. It has ["model_type","hidden_size"].',
    ],
    [[], "a LoRA configuration is a JSON object, not []."],
    [null, "a LoRA configuration is a JSON object, not null."],
  ])("refuses %j", (json, message) => {
    expect(of(json).message).toContain(`out/adapter_config.json: ${message}`);
  });

  it("keeps settings of a variant that it does not know", () => {
    const config = LoraConfig.fromJSON({ eva_config: { rho: 3, of_the_future: 1 } });
    expect(config.evaConfig).toEqual({ rho: 3, of_the_future: 1 });
    expect(config.toJSON()["eva_config"]).toMatchObject({ rho: 3, of_the_future: 1, tau: 0.99 });
  });

  it("keeps members with any name, __proto__ too", () => {
    const text = '{"peft_type": "LORA", "__proto__": {"r": 1}, "constructor": 2}';
    const config = LoraConfig.fromJSON(JSON.parse(text));
    expect(config.r).toBe(8);
    expect(config.stringify()).toContain('"__proto__": {\n    "r": 1\n  },');
    expect(config.stringify()).toContain('"constructor": 2,');
  });

  it("warns of members that have no effect, with the closest that would", () => {
    const config = LoraConfig.fromJSON(
      { peft_type: "LORA", target_module: ["q"], loraAlpha: 3 },
      { file: "a.json" },
    );
    expect(config.loraAlpha).toBe(8);
    expect(config.warnings.map(({ message }) => message)).toEqual([
      "a.json: PEFT 0.21 has no target_module; it is kept, and has no effect. Closest: target_modules.",
      "a.json: PEFT 0.21 has no loraAlpha; it is kept, and has no effect. Closest: lora_alpha.",
    ]);
  });
});

describe("patterns", () => {
  it("keep the order of a Map, which an object with keys like integers loses", () => {
    const rankPattern = new Map([
      ["b", 1],
      ["10", 2],
      ["9", 3],
    ]);
    expect([...new LoraConfig({ rankPattern }).rankPattern!.keys()]).toEqual(["b", "10", "9"]);
  });

  it("are saved in their order where sorting would change which one comes first", () => {
    const saved = (patterns: Record<string, number>) => [
      ...savedPatterns(new Map(Object.entries(patterns))).keys(),
    ];
    expect(saved({ q: 1, k: 2 })).toEqual(["k", "q"]);
    expect(saved({ "mlp.q": 1, k: 2, "attn.q": 3 })).toEqual(["attn.q", "k", "mlp.q"]);
    expect(saved({ xq: 1, q: 2 })).toEqual(["q", "xq"]);
    expect(saved({ q: 1, "a.q": 2 })).toEqual(["q", "a.q"]);
    expect(saved({ axb: 1, "a.b": 2 })).toEqual(["axb", "a.b"]);
    expect(saved({ q: 1, "a.q": 1 })).toEqual(["a.q", "q"]);
    expect(saved({ q_proj: 4, ".*": 2 })).toEqual(["q_proj", ".*"]);
    const text = new LoraConfig({ rankPattern: { q_proj: 4, ".*": 2 } }).stringify();
    expect(text).toContain('"rank_pattern": {\n    "q_proj": 4,\n    ".*": 2\n  },');
  });

  it("give every module the same value before and after", () => {
    const key = fc
      .array(fc.constantFrom("a", "b", "1", ".", "a.b", "^a", ".*"), { minLength: 1, maxLength: 4 })
      .map((parts) => parts.join(""));
    const name = fc
      .array(fc.constantFrom("a", "b", "1", "ab", "a1b"), { minLength: 1, maxLength: 4 })
      .map((parts) => parts.join("."));
    const first = (patterns: ReadonlyMap<string, number>, subject: string): number | undefined =>
      [...patterns].find(([pattern]) => compile(`(.*\\.)?(${pattern})$`).match(subject) !== null)?.[1];
    fc.assert(
      fc.property(
        fc.array(fc.tuple(key, fc.integer({ min: 1, max: 3 })), { maxLength: 5 }),
        name,
        (entries, subject) => {
          const patterns = new Map(entries);
          expect(first(savedPatterns(patterns), subject)).toBe(first(patterns, subject));
        },
      ),
      { numRuns: 2000, seed: 1 },
    );
  });
});

describe("files", () => {
  /** JSON.stringify cannot write -0. */
  const positiveZero = (value: number): number => value + 0;
  const names = fc.array(fc.string(), { maxLength: 4 });
  const table = fc.dictionary(fc.stringMatching(/^[a-z.]{1,4}$/), fc.integer({ min: 1, max: 64 }), {
    maxKeys: 4,
  });
  const options = fc.record(
    {
      r: fc.nat(512),
      loraAlpha: fc.oneof(
        fc.nat(1024),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map(positiveZero),
      ),
      loraDropout: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }).map(positiveZero),
      targetModules: fc.oneof(names, fc.constant(null)),
      excludeModules: fc.oneof(names, fc.string(), fc.constant(null)),
      modulesToSave: fc.oneof(names, fc.constant(null)),
      layersToTransform: fc.oneof(fc.nat(30), fc.array(fc.nat(30)), fc.constant(null)),
      rankPattern: table,
      alphaPattern: table,
      bias: fc.constantFrom("none", "all", "lora_only"),
      initLoraWeights: fc.constantFrom(true, false, "gaussian", "eva", "pissa_niter_3"),
      trainableTokenIndices: fc.oneof(
        fc.array(fc.nat()),
        fc.dictionary(fc.string(), fc.array(fc.nat())),
        fc.constant(null),
      ),
      taskType: fc.constantFrom("CAUSAL_LM", "SEQ_CLS", null),
      baseModelNameOrPath: fc.string({ unit: "binary" }),
    },
    { requiredKeys: [] },
  );

  it("hold every configuration: reading what was written gives the same text", () => {
    fc.assert(
      fc.property(options, (given) => {
        const config = new LoraConfig(given as LoraConfigOptions);
        const text = config.stringify();
        expect(/^[\x20-\x7e\n]*$/.test(text)).toBe(true);
        const parsed: unknown = JSON.parse(text);
        expect(parsed).toStrictEqual(JSON.parse(JSON.stringify(config)));
        expect(LoraConfig.fromJSON(parsed).stringify()).toBe(text);
        for (const [field, value] of Object.entries(given))
          if (!["targetModules", "excludeModules", "rankPattern", "alphaPattern"].includes(field))
            expect(LoraConfig.fromJSON(parsed)[field as "r"]).toEqual(value);
      }),
      { numRuns: 500, seed: 1 },
    );
  });

  it("hold a tuple in its order", () => {
    const config = new LoraConfig({ targetModules: new Tuple(["v", "q", "v"]) });
    expect(config.toJSON()["target_modules"]).toEqual(["v", "q", "v"]);
    expect(config.toSelection().targetModules).toBeInstanceOf(Tuple);
  });

  it("name the class of the base model as Python finds it", () => {
    expect(autoMappingOf("LlamaForCausalLM", "llama")).toEqual({
      base_model_class: "LlamaForCausalLM",
      parent_library: "transformers.models.llama.modeling_llama",
    });
  });
});

describe("unsupportedForTraining", () => {
  it.each([
    {},
    {
      useDora: false,
      loraBias: false,
      layerReplication: [],
      targetParameters: [],
      trainableTokenIndices: {},
    },
    { megatronConfig: {}, aloraInvocationTokens: [], loftqConfig: { loftq_bits: 4 }, qaloraGroupSize: 32 },
    { evaConfig: {}, cordaConfig: {}, loraGaConfig: {}, megatronCore: "x" },
    { initLoraWeights: "gaussian", bias: "all", loraDropout: 0.1, useRslora: true },
    { initLoraWeights: false, bias: "lora_only", modulesToSave: ["lm_head"] },
  ] satisfies LoraConfigOptions[])("finds nothing in %j", (options) => {
    expect(new LoraConfig(options).unsupportedForTraining()).toEqual([]);
  });

  it.each([
    ["useDora", { useDora: true }],
    ["loraBias", { loraBias: true }],
    ["layerReplication", { layerReplication: [[0, 2]] }],
    ["targetParameters", { targetParameters: ["w"] }],
    ["trainableTokenIndices", { trainableTokenIndices: [] }],
    ["trainableTokenIndices", { trainableTokenIndices: { wte: [] } }],
    ["megatronConfig", { megatronConfig: { a: 1 } }],
    ["aloraInvocationTokens", { aloraInvocationTokens: [1] }],
    ["useQalora", { useQalora: true }],
    ["arrowConfig", { arrowConfig: {} }],
    ["kasaConfig", { kasaConfig: {} }],
    ["montecloraConfig", { montecloraConfig: {} }],
    ["useBdlora", { useBdlora: {} }],
    ["veloraConfig", { veloraConfig: {} }],
    ["initLoraWeights", { initLoraWeights: "pissa" }],
  ] satisfies [string, LoraConfigOptions][])("finds %s in %j", (field, options) => {
    expect(new LoraConfig(options).unsupportedForTraining()).toMatchObject([{ field, loadable: false }]);
  });

  it.each([
    ["eva", 'Use true, false or "gaussian".'],
    ["orthogonal", 'Use true, false or "gaussian".'],
    ["Gaussian", 'Write "gaussian".'],
    [null, "Use false, which is what PEFT makes of it."],
  ])("says that weights saved with initialisation %j can be loaded", (init, remedy) => {
    const found = LoraConfig.fromJSON({ init_lora_weights: init }).unsupportedForTraining();
    expect(found).toMatchObject([{ field: "initLoraWeights", remedy, loadable: true }]);
  });

  it("finds values that only PEFT lets pass, and several at once", () => {
    const config = LoraConfig.fromJSON({ bias: "x_only", lora_dropout: -1, use_dora: true });
    expect(config.unsupportedForTraining().map(({ field }) => field)).toEqual([
      "useDora",
      "bias",
      "loraDropout",
    ]);
  });
});

describe("LoraConfig.fromSelection", () => {
  it("takes what was compiled, and options over it", () => {
    const selection = {
      targetModules: String.raw`.*\.layers\.[45]\..*`,
      layersToTransform: null,
      rankPattern: new Map([["fc1", 4]]),
      r: 16,
    };
    const config = LoraConfig.fromSelection(selection, { loraAlpha: 32 });
    expect(config).toMatchObject({ targetModules: selection.targetModules, r: 16, loraAlpha: 32 });
    expect([...config.rankPattern!]).toEqual([["fc1", 4]]);
  });

  it("checks it as the constructor does", () => {
    const selection = { targetModules: ["q_proj"], loraDropout: "much" as unknown as number };
    expect(failure(() => LoraConfig.fromSelection(selection)).message).toMatch(/loraDropout/);
  });
});

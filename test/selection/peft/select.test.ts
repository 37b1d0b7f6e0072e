import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import {
  type ModuleInfo,
  type ModuleTree,
  type SelectionConfig,
  selectTargets,
  Tuple,
} from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";
import { makeMoeTree } from "./moe-tree.ts";

const skeleton = (name: string): ModuleTree => findSkeleton(name, join(import.meta.dirname, "x"));
const llama = skeleton("llama-3.2-1b");
const moe = makeMoeTree(3, 4);

const failureOf = (tree: ModuleTree, config: object): SelectionError => {
  try {
    selectTargets(tree, config as SelectionConfig);
  } catch (error) {
    if (error instanceof SelectionError) return error;
    throw error;
  }
  throw new Error("selected");
};

describe("errors say what, where and what to do", () => {
  test.each([
    [
      { targetModules: ["q_porj"] },
      'no module matches targetModules ["q_porj"] (checked 214 modules of "llama-3.2-1b"). Closest: "q_proj".',
    ],
    [{ targetModules: ["self_atn.q_proj"] }, 'Closest: "self_attn.q_proj".'],
    [{ targetModules: "q_proj" }, '"model.layers.0.self_attn.q_proj" only ends with it: use ["q_proj"].'],
    [{ targetModules: [".*q_proj"] }, "plain names, not regular expressions"],
    [
      { targetModules: ["q_proj"], layersToTransform: [99] },
      "16 modules match by name, but not layersToTransform [99]: their layers are 0, 1, 2,",
    ],
    [
      { targetModules: ["q_proj"], layersToTransform: [0], layersPattern: "h" },
      "their names hold no such layer index",
    ],
    [{ targetModules: ["mlp"] }, '"model.layers.0.mlp" is matched, but a LlamaMLP cannot carry LoRA.'],
    [{ targetModules: ".*(q" }, "targetModules: invalid regular expression"],
    [{ targetModules: ["q_proj"], rankPattern: { "(": 1 } }, "rankPattern: invalid regular expression"],
    [
      { targetModules: ["q_proj"], rankPattern: { q_proj: 0 } },
      'it is 0 for "model.layers.0.self_attn.q_proj"',
    ],
    [{ targetModuls: ["q_proj"] }, 'LoraConfig has no field "targetModuls". Closest: "targetModules".'],
    [
      { targetModules: ["q_proj"], veloraConfig: {} },
      "veloraConfig is a LoRA variant that Graft does not implement.",
    ],
    [{ targetModules: [], targetParameters: ["down_prj.weight"] }, 'Closest: "down_proj.weight".'],
    [{ targetModules: ["q_proj"], excludeModules: ["q_proj"] }, "Exclude less"],
    [{ taskType: "CAUSAL_LLM" }, "Use one of SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM,"],
  ])("%j", (config, text) => {
    expect(failureOf(llama, config).message).toContain(text);
  });

  test("details hold PEFT's stage, exception and code, and the warnings until then", () => {
    const config = { targetModules: ["q_porj"], initLoraWeights: "eva" };
    expect(failureOf(llama, config).details).toMatchObject({
      stage: "inject",
      pythonType: "NoMatchingPeftModuleError",
      code: "no-match",
      nearest: ["q_proj"],
      warnings: [{ code: "eva-default-config" }, { code: "eva-low-cpu-mem" }],
    });
  });

  test("a broken pattern that no module reaches stays unnoticed, as in PEFT", () => {
    const config = { targetModules: ["q_proj"], layersToTransform: [0], layersPattern: ["layers", "("] };
    expect(selectTargets(llama, config).targets).toHaveLength(1);
  });
});

test("what Python warns of in a pattern is passed on", () => {
  const { warnings } = selectTargets(llama, { targetModules: ".*[[q]_proj" });
  expect(warnings).toMatchObject([{ category: "FutureWarning", count: 1 }]);
});

describe("reasons", () => {
  test.each([
    [{ targetModules: ["q_proj"] }, 'the name ends with "q_proj"'],
    [{ targetModules: ["model.layers.0.self_attn.q_proj"] }, "listed by its full name in targetModules"],
    [
      { targetModules: ["q_proj"], layersToTransform: [0, 4] },
      'the name ends with "q_proj", and layer index 0 (model.layers.0) is in [0, 4]',
    ],
    [{ targetModules: ".*q_proj" }, 'the whole name matches the regex ".*q_proj"'],
  ])("%j", (config, because) => {
    expect(selectTargets(llama, config).targets[0]!.because).toBe(because);
  });

  test("a tied layer says what it follows", () => {
    const { targets } = selectTargets(llama, {
      targetModules: ["embed_tokens", "q_proj"],
      ensureWeightTying: true,
    });
    expect(targets.at(-1)).toMatchObject({
      name: "lm_head",
      reason: { rule: "tied", entry: "model.embed_tokens" },
    });
  });

  test("a parameter names the entry", () => {
    const mixtral = skeleton("mixtral-8x7b");
    const { targetParameters } = selectTargets(mixtral, {
      targetModules: [],
      targetParameters: ["experts.down_proj"],
    });
    expect(targetParameters[0]).toMatchObject({
      name: "model.layers.0.mlp.experts.down_proj",
      layer: "ParamWrapper",
      because: 'the parameter\'s name ends with "experts.down_proj" of targetParameters',
      tensors: [
        ["lora_A.weight", [64, 14336]],
        ["lora_B.weight", [4096, 64]],
      ],
    });
  });
});

describe("configuration", () => {
  test("neither the configuration nor its lists are changed", () => {
    const config = {
      targetModules: ["embed_tokens", "q_proj"],
      modulesToSave: ["embed_tokens", "lm_head"],
      rankPattern: { q_proj: 4 },
      ensureWeightTying: true,
      taskType: "SEQ_CLS",
    } as const;
    const before = JSON.stringify(config);
    const { config: after } = selectTargets(llama, config);
    expect(JSON.stringify(config)).toBe(before);
    expect(after.modulesToSave).toEqual(["embed_tokens", "classifier", "score", "model.embed_tokens"]);
  });

  test("patterns keep their order in a Map, even with keys like integers", () => {
    const rankPattern = new Map([
      ["q_proj", 4],
      ["0", 2],
    ]);
    const { targets } = selectTargets(llama, { targetModules: ["q_proj"], rankPattern });
    expect(targets[0]!.r).toBe(4);
  });

  test("an empty list of layers is no filter, an empty tuple rejects everything", () => {
    expect(selectTargets(llama, { targetModules: ["q_proj"], layersToTransform: [] }).targets).toHaveLength(
      16,
    );
    expect(failureOf(llama, { targetModules: ["q_proj"], layersToTransform: new Tuple([]) }).code).toBe(
      "no-match-with-layers",
    );
  });

  test("a tuple of many targets is not condensed", () => {
    const names = llama.modules
      .filter(({ name }) => name.endsWith("q_proj") || name.endsWith("v_proj"))
      .map(({ name }) => name);
    expect(selectTargets(llama, { targetModules: new Tuple(names) }).config.targetModules).toBeInstanceOf(
      Tuple,
    );
    expect(selectTargets(llama, { targetModules: names }).config.targetModules).toEqual(
      new Set(["q_proj", "v_proj"]),
    );
  });
});

/** The same tree with the children of every module in another order. */
function shuffled(tree: ModuleTree, seed: number): ModuleTree {
  const children = new Map<string, ModuleInfo[]>();
  for (const info of tree.modules) {
    if (info.name === "") continue;
    const parent = info.name.slice(0, Math.max(0, info.name.lastIndexOf(".")));
    children.set(parent, [...(children.get(parent) ?? []), info]);
  }
  let state = seed;
  const key = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  const modules: ModuleInfo[] = [];
  const visit = (info: ModuleInfo): void => {
    modules.push(info);
    const own = (children.get(info.name) ?? []).map((child) => [key(), child] as const);
    for (const [, child] of own.sort((a, b) => a[0] - b[0])) visit(child);
  };
  visit(tree.modules[0]!);
  return { ...tree, modules };
}

const leaf = fc.constantFrom(
  "q_proj",
  "v_proj",
  "gate_proj",
  "up_proj",
  "down_proj",
  "gate",
  "lm_head",
  "embed_tokens",
);
const configs: fc.Arbitrary<SelectionConfig> = fc.record(
  {
    targetModules: fc.oneof(
      fc.array(leaf, { minLength: 1, maxLength: 4 }),
      fc.constantFrom("all-linear", ".*proj", ".*\\.[02]\\..*proj", ".*(q|v)_proj|lm_head"),
    ),
    excludeModules: fc.oneof(fc.array(leaf, { maxLength: 2 }), fc.constant(".*experts\\.1\\..*")),
    rankPattern: fc.dictionary(leaf, fc.integer({ min: 1, max: 9 }), { maxKeys: 2 }),
    modulesToSave: fc.constantFrom(["lm_head"], ["embed_tokens"], ["gate"]),
    bias: fc.constantFrom("none", "all", "lora_only"),
    useDora: fc.boolean(),
  },
  { requiredKeys: ["targetModules"] },
);

const outcome = (tree: ModuleTree, config: SelectionConfig): unknown => {
  try {
    const { targets, stateDict, trainableParameters, totalParameters, modulesToSave, warnings } =
      selectTargets(tree, config);
    return {
      targets: targets.map(({ name, r, parameters }) => `${name} ${r} ${parameters}`).sort(),
      tensors: stateDict.map((row) => JSON.stringify(row)).sort(),
      saved: [...modulesToSave].sort(),
      counts: [trainableParameters, totalParameters],
      warnings: warnings.map(({ code, count }) => `${code} ${count}`),
    };
  } catch (error) {
    return (error as SelectionError).code;
  }
};

test("the order of modules changes the order of targets, nothing else", () => {
  fc.assert(
    fc.property(configs, fc.integer(), (config, seed) => {
      expect(outcome(shuffled(moe, seed), config)).toEqual(outcome(moe, config));
    }),
    { numRuns: 200 },
  );
});

test("trained parameters are those of the targets, the saved copies and the biases", () => {
  fc.assert(
    fc.property(configs, (config) => {
      const result = outcome(moe, { ...config, modulesToSave: null, bias: "none" });
      if (typeof result === "string") return;
      const { targets, trainableParameters, totalParameters } = selectTargets(moe, {
        ...config,
        modulesToSave: null,
        bias: "none",
      });
      const added = targets.reduce((sum, { parameters }) => sum + parameters, 0);
      expect([trainableParameters, totalParameters]).toEqual([added, moe.numParameters + added]);
    }),
    { numRuns: 100 },
  );
});

test("counting by formula and by walking the model agree", () => {
  for (const name of ["llama-3.2-1b", "gpt2", "t5-small", "mixtral-8x7b"]) {
    const tree = skeleton(name);
    // nothing is saved by this entry, but its presence makes selection walk the wrapped model
    const walked = selectTargets(tree, { targetModules: "all-linear", modulesToSave: ["no_such_module"] });
    const counted = selectTargets(tree, { targetModules: "all-linear" });
    expect([counted.trainableParameters, counted.totalParameters]).toEqual([
      walked.trainableParameters,
      walked.totalParameters,
    ]);
  }
});

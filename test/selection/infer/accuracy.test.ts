import { describe, expect, test } from "vitest";
import { isGraftError } from "../../../src/errors.ts";
import {
  defaultTargetModules,
  type ModuleTree,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { inferTree } from "../../../src/selection/infer/index.ts";
import { gist, knownModels, withParameters } from "./models.ts";

/** Modules that a header does not tell of, as they share another's tensors without being its embeddings. */
const invisible: Readonly<Record<string, RegExp>> = {
  zamba2: /^model\.layers\.[35]\.shared_transformer\./,
  sam: /^prompt_encoder\.shared_embedding$/,
};

const models = knownModels();

describe.each(models)("$name", ({ name, truth, checkpoint, stateDict, config }) => {
  const sources = [
    ...(checkpoint.length > 0 ? [["the file that transformers saves", checkpoint] as const] : []),
    ...(stateDict.length > 0 ? [["the state dict", stateDict] as const] : []),
  ];

  test.each(sources)("modules, kinds and shapes from %s", (_, tensors) => {
    const { tree } = inferTree(tensors, config);
    const hidden = invisible[name];
    const expected = withParameters(truth).filter((module) => hidden?.test(module.name) !== true);
    expect(withParameters(tree).map(gist).sort()).toEqual(expected.map(gist).sort());
    if (hidden === undefined || name === "zamba2") expect(tree.numParameters).toBe(truth.numParameters);
    expect([tree.inputEmbeddings, tree.outputEmbeddings]).toEqual([
      truth.inputEmbeddings,
      truth.outputEmbeddings,
    ]);
    expect(tree.seqClsHeads).toEqual(truth.seqClsHeads);
  });

  test.each(sources)("the same modules are selected on %s", (_, tensors) => {
    const { tree } = inferTree(tensors, config);
    let same = 0;
    for (const selection of usualConfigs(truth)) {
      const wanted = outcome(truth, selection, invisible[name]);
      expect(outcome(tree, selection), JSON.stringify(selection)).toEqual(wanted);
      same++;
    }
    expect(same).toBe(6);
  });
});

const attention = [
  "q_proj",
  "v_proj",
  "query",
  "value",
  "q",
  "v",
  "qkv",
  "c_attn",
  "query_key_value",
  "in_proj",
];

function usualConfigs({ modelType, modules }: ModuleTree): SelectionConfig[] {
  const numbers = modules.flatMap(({ name }) => /\.(\d+)\./.exec(name)?.[1] ?? []).map(Number);
  const last = Math.max(0, ...numbers);
  return [
    modelType in defaultTargetModules ? {} : { targetModules: ["fc1", "fc2"] },
    { targetModules: attention },
    { targetModules: "all-linear" },
    { targetModules: attention, layersToTransform: [last - 1, last] },
    { targetModules: ".*\\.(0|1)\\..*(q_proj|v_proj|query|value|qkv|c_attn|fc1|convolution)$" },
    { targetModules: "all-linear", excludeModules: ".*(fc2|down_proj|output).*", r: 4 },
  ];
}

function outcome(tree: ModuleTree, config: SelectionConfig, hidden?: RegExp): string[] | string {
  try {
    const targets = selectTargets(tree, config).targets.filter(
      (target) => hidden?.test(target.name) !== true,
    );
    return targets.map((target) => `${target.name} ${target.r} ${target.parameters}`).sort();
  } catch (error) {
    if (!isGraftError(error)) throw error;
    return error.code;
  }
}

test("more than 99 % of all modules with parameters have the right name, kind, in and out", () => {
  let [right, all] = [0, 0];
  for (const { truth, checkpoint, stateDict, config } of models)
    for (const tensors of [checkpoint, stateDict]) {
      if (tensors.length === 0) continue;
      const found = new Set(withParameters(inferTree(tensors, config).tree).map(gist));
      for (const module of withParameters(truth)) {
        all++;
        if (found.has(gist(module))) right++;
      }
    }
  expect(all).toBeGreaterThan(10_000);
  expect(right / all).toBeGreaterThan(0.99);
});

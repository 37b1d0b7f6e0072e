/** What explanations say, rule by rule. */
import { describe, expect, test } from "vitest";
import { SelectionError } from "../../../src/errors.ts";
import { explain, type SelectionConfig } from "../../../src/selection/index.ts";
import { skeleton } from "./support.ts";

const llama = "llama-3.2-1b";
const one = (model: string, config: SelectionConfig, name: string) =>
  explain(skeleton(model), config, [name])[0]!;

describe("the rule that decides, and why", () => {
  const q3 = "model.layers.3.self_attn.q_proj";
  const encoder = { targetModules: ["q_proj"], layersToTransform: [4, 5], layersPattern: "encoder.layers" };

  test.each<[string, SelectionConfig, string, boolean, string, string]>([
    [llama, { targetModules: ["q_proj"] }, q3, true, "suffix", 'the name ends with "q_proj"'],
    [
      llama,
      { targetModules: [q3], layersToTransform: [9] },
      q3,
      true,
      "name",
      "listed by its full name in targetModules (layersToTransform does not apply to full names)",
    ],
    [llama, { targetModules: ".*q_proj" }, q3, true, "regex", 'the whole name matches the regex ".*q_proj"'],
    [
      llama,
      { targetModules: "all-linear" },
      q3,
      true,
      "all-linear",
      'all-linear takes it: a Linear; the name ends with "q_proj"',
    ],
    [
      llama,
      { targetModules: "all-linear" },
      "lm_head",
      false,
      "all-linear",
      "all-linear leaves out the output head",
    ],
    [
      llama,
      { targetModules: "all-linear" },
      "model.embed_tokens",
      false,
      "all-linear",
      "all-linear takes Linear and Conv1D layers only; this is an Embedding",
    ],
    [
      llama,
      {},
      q3,
      true,
      "default-targets",
      'a default target of model type "llama": the name ends with "q_proj"',
    ],
    [
      llama,
      {},
      "model.layers.3.mlp.down_proj",
      false,
      "no-entry",
      'no default target ("q_proj", "v_proj") is its name or the end of it',
    ],
    [
      "bart-base",
      encoder,
      "model.encoder.layers.4.self_attn.q_proj",
      true,
      "suffix",
      'the name ends with "q_proj", and layer index 4 (model.encoder.layers.4) is in [4, 5]',
    ],
    [
      "bart-base",
      encoder,
      "model.encoder.layers.3.self_attn.q_proj",
      false,
      "layer",
      '"q_proj" matched; layer index 3 (model.encoder.layers.3) is not in [4, 5]',
    ],
    [
      "bart-base",
      encoder,
      "model.decoder.layers.4.self_attn.q_proj",
      false,
      "no-layer",
      '"q_proj" matched; but the name has no layer index behind "encoder.layers" (layersPattern)',
    ],
    [
      llama,
      { targetModules: ["attn.q_proj"] },
      q3,
      false,
      "no-entry",
      'no entry of targetModules is its name or the end of it; "attn.q_proj" shares its last part',
    ],
    [
      llama,
      { targetModules: ["x.self_attn.q_proj"] },
      q3,
      false,
      "no-entry",
      'no entry of targetModules is its name or the end of it; "x.self_attn.q_proj" shares its last 2 parts',
    ],
    [
      llama,
      { targetModules: ["q_porj"] },
      q3,
      false,
      "no-entry",
      'no entry of targetModules is its name or the end of it; the nearest is "q_porj"',
    ],
    [
      llama,
      { targetModules: "self_attn\\.q_proj" },
      q3,
      false,
      "no-regex-match",
      'the whole name does not match the regex "self_attn\\\\.q_proj"; it would with ".*" in front',
    ],
    [
      llama,
      { targetModules: ".*\\.layers\\.[45]\\.self_attn\\.[qv]_proj" },
      q3,
      false,
      "no-regex-match",
      'the whole name does not match the regex ".*\\\\.layers\\\\.[45]\\\\.self_attn\\\\.[qv]_proj"; it gets as far as "model.layers.", then "3.self_attn.q_proj" does not fit',
    ],
    [
      llama,
      { targetModules: ".*layers\\.3" },
      q3,
      false,
      "no-regex-match",
      'the whole name does not match the regex ".*layers\\\\.3"; it would with ".*" behind',
    ],
    [
      llama,
      { targetModules: "(?!x)y" },
      q3,
      false,
      "no-regex-match",
      'the whole name does not match the regex "(?!x)y"',
    ],
    [
      llama,
      { targetModules: ["q_proj"], excludeModules: ["3.self_attn.q_proj"] },
      q3,
      false,
      "exclude-modules",
      'excluded by excludeModules "3.self_attn.q_proj"; "q_proj" would take it',
    ],
    [
      llama,
      { targetModules: ["v_proj"], excludeModules: ["q_proj"] },
      q3,
      false,
      "exclude-modules",
      'excluded by excludeModules "q_proj"',
    ],
    [
      llama,
      { targetModules: ["q_proj"], modulesToSave: ["layers.3"] },
      q3,
      false,
      "modules-to-save",
      'it is, or is inside, "layers.3" of modulesToSave, which is trained as a whole; "q_proj" would take it',
    ],
    [
      "bert-base-seqcls",
      { targetModules: "all-linear", taskType: "SEQ_CLS" },
      "classifier",
      false,
      "modules-to-save",
      'it is, or is inside, "classifier" of modulesToSave, which is trained as a whole (a head, which taskType SEQ_CLS adds)',
    ],
    [
      llama,
      { targetModules: ["embed_tokens"], ensureWeightTying: true },
      "lm_head",
      true,
      "tied",
      'its weight is tied to the input embedding "model.embed_tokens" (ensureWeightTying)',
    ],
    [
      "mixtral-8x7b",
      { targetModules: ["q_proj", "gate"] },
      "model.layers.0.mlp.gate",
      false,
      "moved-to-parameters",
      '"gate" matched; but for model type "mixtral" it stands for the parameter "gate.weight" (targetParameters); targetParameters adapts its "weight"',
    ],
    [
      "mixtral-8x7b",
      { targetModules: ["w1", "w3"] },
      "model.layers.0.mlp.experts.gate_up_proj",
      true,
      "parameter",
      'the parameter\'s name ends with "gate_up_proj" of targetParameters, which "w1" and "w3" of targetModules became (stacked experts of model type "mixtral")',
    ],
    [
      "mixtral-8x7b",
      { targetModules: ["q_proj"] },
      "model.layers.0.mlp.experts.down_proj",
      false,
      "no-targets",
      "targetParameters is not set",
    ],
    [
      "edge-gpt-oss",
      { targetModules: [], targetParameters: ["gate_up_proj"] },
      "model.layers.0.mlp.experts.down_proj",
      false,
      "no-entry",
      "no entry of targetParameters is its name or the end of it",
    ],
    [
      "mixtral-8x7b",
      { targetModules: ".*\\.3\\..*q_proj" },
      "model.layers.0.self_attn.q_proj",
      true,
      "suffix",
      '".*\\\\.3\\\\..*q_proj" became a list of last name parts (model type "mixtral"); the name ends with "q_proj"',
    ],
    [
      "gpt2",
      { targetModules: "dummy-target-modules" },
      "transformer.h.0.attn.c_attn",
      false,
      "no-targets",
      'targetModules is "dummy-target-modules", which takes nothing',
    ],
    [llama, { targetModules: ["q_proj"] }, "", false, "root", "the model itself is never a target"],
  ])("%s %j: %s", (model, config, name, selected, rule, reason) => {
    expect(one(model, config, name)).toMatchObject({ name, selected, rule, reason });
  });

  test("a list that PEFT condenses", () => {
    const names = skeleton(llama).modules.map(({ name }) => name);
    const listed = names.filter(
      (name) => name.endsWith("self_attn.q_proj") || name.endsWith("self_attn.k_proj"),
    );
    expect(listed).toHaveLength(32);
    expect(one(llama, { targetModules: listed }, q3).reason).toBe(
      `listed as "${q3}", in a list of 32 names that PEFT condensed; the name ends with "q_proj"`,
    );
    // what was a full name is the end of one now, so the layers apply again
    expect(one(llama, { targetModules: listed, layersToTransform: [4] }, q3)).toMatchObject({
      selected: false,
      rule: "layer",
      reason: `listed as "${q3}", in a list of 32 names that PEFT condensed; "q_proj" matched; layer index 3 (model.layers.3) is not in [4]`,
    });
  });

  test("replicated layers have names of their own", () => {
    const config: SelectionConfig = {
      targetModules: ["q_proj"],
      layersToTransform: [20],
      layerReplication: [
        [0, 16],
        [0, 16],
      ],
    };
    expect(one(llama, config, "model.layers.20.self_attn.q_proj").selected).toBe(true);
    expect(() => one(llama, { targetModules: ["q_proj"] }, "model.layers.20.self_attn.q_proj")).toThrow(
      /no module "model\.layers\.20/,
    );
  });

  test("values, near misses and saved modules come as data too", () => {
    const config: SelectionConfig = {
      targetModules: ["q_proj"],
      layersToTransform: [4],
      rankPattern: { q_proj: 2 },
      modulesToSave: ["norm"],
    };
    expect(one(llama, config, "model.layers.4.self_attn.q_proj")).toMatchObject({
      entry: "q_proj",
      layer: { index: 4, layer: "model.layers.4", pattern: null },
      ...{ r: 2, alpha: 8, scaling: 4, parameters: 2 * (2048 + 2048) },
    });
    expect(one(llama, config, q3).near).toEqual({
      kind: "layer",
      entry: "q_proj",
      layer: { index: 3, layer: "model.layers.3", pattern: null },
      wanted: [4],
    });
    // saved by the bare end of its name, although it is not excluded
    expect(one(llama, config, "model.layers.4.input_layernorm")).toMatchObject({
      rule: "no-entry",
      saved: "model.layers.4.input_layernorm",
      reason: expect.stringContaining("modulesToSave trains it as a whole"),
    });
    expect(one(llama, { targetModules: ".*\\.layers\\.4.*" }, q3).near).toMatchObject({
      reached: "model.layers.",
      before: false,
      after: false,
    });
  });
});

describe("where PEFT fails, modules are judged all the same", () => {
  test("every module that cannot be adapted is told", () => {
    const all = explain(skeleton(llama), { targetModules: ["q_proj", "mlp", "norm"] });
    expect(all.every(({ failure }) => failure?.code === "unsupported-module-type")).toBe(true);
    const problems = all.filter(({ problem }) => problem !== undefined);
    expect(problems.map(({ name }) => name)).toEqual([
      ...Array.from({ length: 16 }, (_, layer) => `model.layers.${layer}.mlp`),
      "model.norm",
    ]);
    expect(problems[0]!.reason).toMatch(
      /^the name ends with "mlp"; PEFT fails here: .*LlamaMLP cannot carry LoRA/,
    );
    expect(all.find(({ name }) => name.endsWith("q_proj"))).toMatchObject({ selected: true, rule: "suffix" });
  });

  test.each<[SelectionConfig, string, RegExp]>([
    [
      { targetModules: ["q_proj"], r: 0 },
      "rank-not-positive",
      /the name ends with "q_proj"; PEFT fails here: r must be/,
    ],
    [{ targetModules: ["q_proj"], bias: "some" }, "unknown-bias", /^the name ends with "q_proj"$/],
    [
      { targetModules: "q_proj", layersToTransform: [1] },
      "regex-with-layers-to-transform",
      /^PEFT refuses the configuration before/,
    ],
    [{ targetModules: "(q_proj" }, "invalid-regex", /^PEFT refuses the configuration before/],
    [{ targetModules: ["q_proj"], excludeModules: "(q" }, "invalid-regex", /^a rule cannot be applied: /],
  ])("%j: %s", (config, code, reason) => {
    const explained = one(llama, config, "model.layers.3.self_attn.q_proj");
    expect(explained.failure?.code).toBe(code);
    expect(explained.reason).toMatch(reason);
  });
});

describe("names that are asked for", () => {
  const names = (...asked: string[]) => explain(skeleton(llama), {}, asked).map(({ name }) => name);

  test("patterns span dots, and PEFT's own names are understood", () => {
    expect(names("*layers.3.*v_proj")).toEqual(["model.layers.3.self_attn.v_proj"]);
    expect(names("model.layers.?.mlp")).toHaveLength(10);
    expect(names("base_model.model.model.norm", "model.norm")).toEqual(["model.norm"]);
    expect(names("model.norm.weight")).toEqual(["model.norm.weight"]);
  });

  test("all that are unknown are told, with the nearest", () => {
    const asked = ["model.layers.0.self_atn.q_proj", "transformer.lm_head", "*nothing*", "x".repeat(100_000)];
    const error = (() => {
      try {
        return names(...asked);
      } catch (thrown) {
        return thrown as SelectionError;
      }
    })() as SelectionError;
    expect(error).toBeInstanceOf(SelectionError);
    expect(error.code).toBe("unknown-module");
    expect(error.details["names"]).toEqual(asked);
    expect(error.message).toMatch(
      /"model\.layers\.0\.self_atn\.q_proj" \(nearest: "model\.layers\.0\.self_attn\.q_proj"/,
    );
    // where only the last part is right, the modules of that name are near
    expect(error.message).toContain('"transformer.lm_head" (nearest: "lm_head")');
    expect(error.message.length).toBeLessThan(1000);
  });
});

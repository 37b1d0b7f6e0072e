import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../../src/adapters/config-options.ts";
import { getPeftModel, LoraConfig, type PeftModel } from "../../../src/adapters/index.ts";
import { moduleTreeOf } from "../../../src/adapters/module-tree.ts";
import { readSafetensors } from "../../../src/checkpoint/index.ts";
import { fileSource } from "../../../src/checkpoint/node.ts";
import { AutoModelForCausalLM, type CausalLM } from "../../../src/models/index.ts";
import { type Cost, type CostOptions, estimateCost } from "../../../src/selection/index.ts";
import { Trainer } from "../../../src/training/index.ts";
import { sharedEngine } from "../../support/run-graph.ts";
import { freshAdapter, plainRun, referenceCase, temporaryFolder } from "../../training/trainer-runs.ts";
import { countGraph, expectLater } from "./count-graph.ts";

const root = join(import.meta.dirname, "../../..");
const recorded = join(root, "test/vectors/models");
const models: [name: string, path: string][] = [
  ["tiny-llama", join(root, "models/tiny-llama")],
  ...readdirSync(recorded, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }): [string, string] => [name, join(recorded, name, "model")]),
];

const selections: [name: string, options: LoraConfigOptions][] = [
  ["every linear layer", { targetModules: "all-linear" }],
  ["q and v", { targetModules: ["q_proj", "v_proj"] }],
  ["q and v of one layer", { targetModules: ["q_proj", "v_proj"], layersToTransform: [1] }],
  ["v of one layer, with dropout", { targetModules: ["v_proj"], layersToTransform: [1], loraDropout: 0.1 }],
  ["down of one layer", { targetModules: ["down_proj"], layersToTransform: [1] }],
  ["k of the lowest layer", { targetModules: ["k_proj"], layersToTransform: [0] }],
  ["o and up", { targetModules: ["o_proj", "up_proj"] }],
  ["gate, with dropout", { targetModules: ["gate_proj"], loraDropout: 0.1 }],
  ["the embedding", { targetModules: ["embed_tokens"] }],
  ["other ranks", { targetModules: ["q_proj", "up_proj"], rankPattern: { up_proj: 7 } }],
  ["q, with all biases", { targetModules: ["q_proj"], bias: "all" }],
  [
    "q of one layer, and the head whole",
    { targetModules: ["q_proj"], layersToTransform: [1], modulesToSave: ["lm_head"] },
  ],
  [
    "a norm whole",
    { targetModules: ["o_proj"], layersToTransform: [1], modulesToSave: ["0.input_layernorm"] },
  ],
];

/** Of tiny models little is worth keeping at the usual price. */
const flopsPerByte = 20;
const shape = { batch: 2, sequence: 96, labels: 48, flopsPerByte };
const options = { batchSize: 2, sequenceLength: 96, labelFraction: 0.25, flopsPerByte } satisfies CostOptions;
const tokens = shape.batch * shape.sequence;

async function adapted(
  path: string,
  lora: LoraConfigOptions,
): Promise<{ peft: PeftModel<CausalLM>; cost: Cost }> {
  const model = await AutoModelForCausalLM.fromPretrained(path);
  const tree = moduleTreeOf(model);
  const peft = getPeftModel(model, new LoraConfig({ r: 4, ...lora }));
  return { peft, cost: estimateCost(tree, peft.selection, options) };
}

describe.each(models)("%s", (_, path) => {
  test.each(selections)("%s: what the training graph multiplies, keeps and trains", async (_name, lora) => {
    const { peft, cost } = await adapted(path, lora);
    const counted = countGraph(peft.baseModel, shape);
    for (const pass of ["forward", "backward"] as const)
      for (const part of ["frozen", "trained", "attention", "head"] as const)
        expect(cost[`${pass}Flops`][part] * tokens, `${pass} ${part}`).toBeCloseTo(counted[pass][part], 0);
    // of frequencies that depend on the batch, names and shapes tell nothing
    if (!peft.baseModel.positionsDependOnBatch) expectLater(cost, counted, tokens);
    expect(cost.trainableParameters).toBe(counted.trainedElements);
    // what is left out: the logarithms of sums in the loss, one number a row
    expect(cost.activationBytes / counted.keptBytes).toBeGreaterThan(0.98);
    expect(cost.activationBytes / counted.keptBytes).toBeLessThan(1.02);
  });
});

describe("bytes on disk", () => {
  const engine = sharedEngine({ threads: 1 });

  test.each(selections)("%s: the adapter's file", async (_, lora) => {
    for (const [, path] of models.slice(0, 4)) {
      const { peft, cost } = await adapted(path, lora);
      const folder = await temporaryFolder();
      await peft.savePretrained(folder);
      expect(statSync(join(folder, "adapter_model.safetensors")).size).toBe(cost.adapterBytes);
    }
  });

  test("what a run saves of the optimizer's state", async () => {
    const reference = referenceCase("llama-qv");
    const peft = await freshAdapter(reference);
    const tree = moduleTreeOf(await reference.loadBase());
    const folder = await temporaryFolder();
    await new Trainer({
      ...plainRun,
      model: peft,
      trainDataset: reference.dataset(),
      engine: engine(),
      outputDir: folder,
      maxSteps: 2,
      saveSteps: 1,
    }).train();
    const file = await fileSource(join(folder, "checkpoint-1", "optimizer.safetensors"));
    const { tensors } = await readSafetensors(file);
    const moments = [...tensors].filter(([name]) => name !== "step");
    const saved = moments.reduce((sum, [, { byteLength }]) => sum + byteLength, 0);
    const cost = estimateCost(tree, peft.selection);
    expect(saved).toBe(cost.optimizerBytes);
    expect(cost.gradientBytes).toBe(cost.optimizerBytes / 2);
  });
});

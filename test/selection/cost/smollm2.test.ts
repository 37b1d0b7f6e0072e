import { expect, test } from "vitest";
import {
  getPeftModel,
  LoraConfig,
  type LoraConfigOptions,
  moduleTreeOf,
} from "../../../src/adapters/index.ts";
import type { CausalLM } from "../../../src/models/index.ts";
import { buildCausalLM } from "../../../src/models/registry.ts";
import { estimateCost } from "../../../src/selection/index.ts";
import { countGraph, expectLater } from "./count-graph.ts";
import { withoutWeights } from "./without-weights.ts";

/** SmolLM2-135M as the hub has it. */
function smollm2() {
  const config = {
    ...{ model_type: "llama", vocab_size: 49152, hidden_size: 576, intermediate_size: 1536 },
    ...{
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      max_position_embeddings: 8192,
    },
    ...{ rms_norm_eps: 1e-5, rope_theta: 100000, hidden_act: "silu", tie_word_embeddings: true },
  };
  const { model } = buildCausalLM(config, "config.json");
  const rest = { generationConfig: undefined, checkpoint: undefined, warnings: [] };
  return withoutWeights(
    Object.assign(model, { origin: { name: "smollm2", config, ...rest } }) as unknown as CausalLM,
  );
}

test.each<[string, LoraConfigOptions, number]>([
  ["every linear layer", { targetModules: "all-linear" }, 1],
  ["q and v of the last quarter", quarter(["q_proj", "v_proj"]), 0.42],
  ["down of the last quarter", quarter(["down_proj"]), 0.4],
  ["the last layer", { targetModules: ["q_proj", "v_proj"], layersToTransform: [29] }, 0.13],
])("%s: the first epoch and later ones, as training cuts them", (_, lora, share) => {
  const model = smollm2();
  const tree = moduleTreeOf(model);
  const peft = getPeftModel(model, new LoraConfig({ r: 8, ...lora }));
  const cost = estimateCost(tree, peft.selection, { batchSize: 4, sequenceLength: 256, labelFraction: 0.25 });
  const counted = countGraph(peft.baseModel, { batch: 4, sequence: 256, labels: 256 });
  for (const pass of ["forward", "backward"] as const)
    for (const part of ["frozen", "trained", "attention", "head"] as const)
      expect(cost[`${pass}Flops`][part] * 1024, `${pass} ${part}`).toBeCloseTo(counted[pass][part], 0);
  expectLater(cost, counted, 1024);
  expect(cost.laterEpochs.share).toBeCloseTo(share, 2);
});

function quarter(targetModules: string[]): LoraConfigOptions {
  return { targetModules, layersToTransform: [23, 24, 25, 26, 27, 28, 29] };
}

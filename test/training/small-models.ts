import { getPeftModel, LoraConfig, type LoraConfigOptions } from "../../src/adapters/index.ts";
import { buildLanguageModel, type LanguageModel } from "../../src/models/index.ts";
import { numel, tensor } from "../../src/tensor/index.ts";
import { Numbers } from "../support/run-graph.ts";

export const llamaConfig = {
  model_type: "llama",
  vocab_size: 60,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 4096,
  tie_word_embeddings: true,
};

export const bartConfig = {
  model_type: "bart",
  vocab_size: 60,
  d_model: 16,
  encoder_layers: 2,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 24,
  decoder_layers: 2,
  decoder_attention_heads: 2,
  decoder_ffn_dim: 24,
  max_position_embeddings: 4096,
  bos_token_id: 0,
  pad_token_id: 1,
  eos_token_id: 2,
  decoder_start_token_id: 2,
};

/** A model with random weights, which live in JavaScript. */
export function withRandomWeights<M extends LanguageModel>(model: M): M {
  const numbers = new Numbers(5);
  for (const [name, parameter] of model.namedParameters()) {
    const values = numbers.fill(parameter.shape, -0.4, 0.4);
    const around = /norm/.test(name) ? 1 : 0;
    parameter.name = name;
    parameter.data = tensor(
      "float32",
      parameter.shape,
      Float32Array.from({ length: numel(parameter.shape) }, (_, i) => around + values[i]!),
    );
  }
  return model;
}

/** A model of random weights with adapters of random weights. */
export function smallModel(
  config: Readonly<Record<string, unknown>>,
  lora: LoraConfigOptions,
): LanguageModel {
  const { model } = buildLanguageModel(config, "config.json");
  const origin = { name: "small", config, generationConfig: undefined, checkpoint: undefined, warnings: [] };
  withRandomWeights(Object.assign(model, { origin }) as unknown as LanguageModel);
  getPeftModel(model, new LoraConfig({ r: 2, initLoraWeights: false, ...lora }), { seed: 3 });
  return model;
}

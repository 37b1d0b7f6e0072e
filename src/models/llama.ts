import { z } from "zod";
import { DecoderForCausalLM } from "./decoder.ts";
import { commonSettings, decoderFields, parseDecoderConfig } from "./decoder-config.ts";
import type { ModelBuilder } from "./registry.ts";

const schema = z.object({
  ...decoderFields,
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
});

/** Llama 1 to 3.2, SmolLM, TinyLlama and others of their shape. Source: transformers models/llama. */
export const llama: ModelBuilder = (raw, file) => {
  const defaults = {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    max_position_embeddings: 2048,
  };
  const { config, warnings } = parseDecoderConfig(raw, schema, { file, defaults });
  const model = new DecoderForCausalLM({
    ...commonSettings(config, raw, file),
    classPrefix: "Llama",
    qkvBias: config.attention_bias,
    outputBias: config.attention_bias,
    mlpBias: config.mlp_bias,
    qkNorm: false,
    windows: Array.from({ length: config.num_hidden_layers }, () => undefined),
  });
  return { model, warnings };
};

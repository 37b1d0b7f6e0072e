import { z } from "zod";
import { DecoderForCausalLM } from "./decoder.ts";
import {
  commonSettings,
  decoderFields,
  parseDecoderConfig,
  windowFields,
  windowsOf,
} from "./decoder-config.ts";
import type { ModelBuilder } from "./registry.ts";

const schema = z.object({
  ...decoderFields,
  attention_bias: z.boolean().default(false),
  ...windowFields,
});

/** Qwen3: norms on queries and keys, a head size of its own. Source: transformers models/qwen3. */
export const qwen3: ModelBuilder = (raw, file) => {
  const defaults = {
    vocab_size: 151936,
    hidden_size: 4096,
    intermediate_size: 22016,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    head_dim: 128,
    max_position_embeddings: 32768,
    sliding_window: 4096,
  };
  const { config, warnings } = parseDecoderConfig(raw, schema, { file, defaults });
  const model = new DecoderForCausalLM({
    ...commonSettings(config, raw, file),
    classPrefix: "Qwen3",
    qkvBias: config.attention_bias,
    outputBias: config.attention_bias,
    mlpBias: false,
    qkNorm: true,
    windows: windowsOf(config, file),
  });
  return { model, warnings };
};

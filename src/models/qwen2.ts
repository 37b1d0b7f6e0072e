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
  ...windowFields,
});

/** Qwen2 and Qwen2.5: biases on queries, keys and values. Source: transformers models/qwen2. */
export const qwen2: ModelBuilder = (raw, file) => {
  const defaults = {
    vocab_size: 151936,
    hidden_size: 4096,
    intermediate_size: 22016,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    max_position_embeddings: 32768,
    sliding_window: 4096,
  };
  const { config, warnings } = parseDecoderConfig(raw, schema, { file, defaults });
  const model = new DecoderForCausalLM({
    ...commonSettings(config, raw, file),
    classPrefix: "Qwen2",
    qkvBias: true,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    windows: windowsOf(config, file),
  });
  return { model, warnings };
};

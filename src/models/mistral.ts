import { z } from "zod";
import { DecoderForCausalLM } from "./decoder.ts";
import { commonSettings, decoderFields, parseDecoderConfig } from "./decoder-config.ts";
import type { ModelBuilder } from "./registry.ts";

const schema = z.object({ ...decoderFields, sliding_window: z.number().int().positive().nullish() });

/** Mistral: every layer sees a sliding window, if there is one. Source: transformers models/mistral. */
export const mistral: ModelBuilder = (raw, file) => {
  const defaults = {
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    max_position_embeddings: 4096 * 32,
    sliding_window: 4096,
  };
  const { config, warnings } = parseDecoderConfig(raw, schema, { file, defaults });
  const model = new DecoderForCausalLM({
    ...commonSettings(config, raw, file),
    classPrefix: "Mistral",
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    windows: Array.from({ length: config.num_hidden_layers }, () => config.sliding_window ?? undefined),
  });
  return { model, warnings };
};

import { buildImageTextToText, type ImageTextToTextLM } from "../../src/models/index.ts";

const stages = {
  embed_dim: [8, 12],
  num_heads: [2, 3],
  num_groups: [4, 2],
  depths: [1, 2],
  patch_size: [7, 3],
  patch_stride: [4, 2],
  patch_padding: [3, 1],
  patch_prenorm: [false, true],
};
/** A configuration of two stages and one layer on either side. */
export const small = {
  model_type: "florence2",
  text_config: {
    vocab_size: 40,
    d_model: 16,
    encoder_layers: 1,
    encoder_attention_heads: 2,
    encoder_ffn_dim: 24,
    decoder_layers: 1,
    decoder_attention_heads: 4,
    decoder_ffn_dim: 24,
    max_position_embeddings: 40,
  },
  vision_config: { ...stages, window_size: 3, projection_dim: 16 },
  image_token_id: 39,
};

/** The model without weights. */
export function build(config: Record<string, unknown>): ImageTextToTextLM {
  const { model } = buildImageTextToText(config, "config.json");
  const origin = {
    name: "florence2",
    config,
    generationConfig: undefined,
    checkpoint: undefined,
    warnings: [],
  };
  return Object.assign(model, { origin }) as unknown as ImageTextToTextLM;
}

export const withText = (changes: object): Record<string, unknown> => ({
  ...small,
  text_config: { ...small.text_config, ...changes },
});
export const withVision = (changes: object): Record<string, unknown> => ({
  ...small,
  vision_config: { ...small.vision_config, ...changes },
});

import { z } from "zod";
import { UnsupportedModelError } from "../errors.ts";
import { count, parseConfig, tokenIds } from "./model-config.ts";

/** One side of an encoder–decoder. */
export type TowerSettings = { readonly layers: number; readonly heads: number; readonly ffn: number };

/** BART's shape and rates, whichever config.json they are written in. */
export type BartSettings = {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositions: number;
  readonly encoder: TowerSettings;
  readonly decoder: TowerSettings;
  readonly activation: string;
  /** What embeddings of tokens are multiplied with. */
  readonly embedScale: number;
  readonly tiedEmbeddings: boolean;
  /** Probabilities of dropout in training. */
  readonly dropout: number;
  readonly attentionDropout: number;
  readonly activationDropout: number;
  readonly padTokenId: number;
  readonly decoderStartTokenId: number;
};

const layers = z.number().int().nonnegative();
const rate = z.number().min(0).lt(1).nullish();
const tokenId = z.number().int().nonnegative();

const schema = z.object({
  model_type: z.string(),
  vocab_size: count,
  d_model: count,
  max_position_embeddings: count,
  encoder_layers: layers,
  encoder_attention_heads: count,
  encoder_ffn_dim: count,
  decoder_layers: layers,
  decoder_attention_heads: count,
  decoder_ffn_dim: count,
  activation_function: z.string(),
  scale_embedding: z.boolean().nullish(),
  tie_word_embeddings: z.boolean(),
  dropout: rate,
  attention_dropout: rate,
  activation_dropout: rate,
  pad_token_id: tokenId,
  bos_token_id: tokenIds,
  eos_token_id: tokenIds,
  decoder_start_token_id: tokenId,
});

/** As transformers' BartConfig has them. */
const defaults = {
  vocab_size: 50265,
  d_model: 1024,
  max_position_embeddings: 1024,
  encoder_layers: 12,
  encoder_attention_heads: 16,
  encoder_ffn_dim: 4096,
  decoder_layers: 12,
  decoder_attention_heads: 16,
  decoder_ffn_dim: 4096,
  activation_function: "gelu",
  tie_word_embeddings: true,
  dropout: 0.1,
  attention_dropout: 0,
  activation_dropout: 0,
  pad_token_id: 1,
  decoder_start_token_id: 2,
};

/** Fields that change the computation, with the only value that is implemented. */
const fixed = {
  encoder_layerdrop: 0,
  decoder_layerdrop: 0,
  is_decoder: false,
  quantization_config: undefined,
};

/** Other names that BartConfig gives to its fields. */
const aliases: Readonly<Record<string, string>> = {
  hidden_size: "d_model",
  num_attention_heads: "encoder_attention_heads",
  num_hidden_layers: "encoder_layers",
};

/** Of fairseq's BART and of heads; transformers' BART ignores them. */
const harmless = [
  ...Object.keys(aliases),
  "add_bias_logits",
  "add_final_layer_norm",
  "classif_dropout",
  "classifier_dropout",
  "extra_pos_embeddings",
  "force_bos_token_to_be_generated",
  "gradient_checkpointing",
  "init_std",
  "normalize_before",
  "normalize_embedding",
  "num_labels",
  "static_position_embeddings",
];

/**
 * Reads the configuration of a BART, be it a config.json or a part of one (`text_config`).
 * @throws UnsupportedModelError for a setting that is not implemented, or sizes that do not fit each other.
 */
export function readBartConfig(
  raw: Readonly<Record<string, unknown>>,
  file: string,
): { settings: BartSettings; warnings: string[] } {
  const named = Object.entries(aliases).flatMap(([alias, name]) =>
    raw[name] === undefined && raw[alias] !== undefined ? [[name, raw[alias]] as const] : [],
  );
  const { config, warnings } = parseConfig({ ...raw, ...Object.fromEntries(named) }, schema, {
    file,
    defaults,
    fixed,
    activation: "activation_function",
    harmless,
  });
  const size = config.d_model;
  for (const heads of [config.encoder_attention_heads, config.decoder_attention_heads])
    if (size % heads !== 0)
      throw new UnsupportedModelError(
        `${file}: d_model ${size} must be a multiple of the number of heads, ${heads}.`,
        { code: "unsupported-config", details: { file } },
      );
  const settings: BartSettings = {
    vocabSize: config.vocab_size,
    hiddenSize: size,
    maxPositions: config.max_position_embeddings,
    encoder: {
      layers: config.encoder_layers,
      heads: config.encoder_attention_heads,
      ffn: config.encoder_ffn_dim,
    },
    decoder: {
      layers: config.decoder_layers,
      heads: config.decoder_attention_heads,
      ffn: config.decoder_ffn_dim,
    },
    activation: config.activation_function,
    embedScale: config.scale_embedding ? Math.sqrt(size) : 1,
    tiedEmbeddings: config.tie_word_embeddings,
    dropout: config.dropout ?? 0,
    attentionDropout: config.attention_dropout ?? 0,
    activationDropout: config.activation_dropout ?? 0,
    padTokenId: config.pad_token_id,
    decoderStartTokenId: config.decoder_start_token_id,
  };
  return { settings, warnings };
}

import { buildCausalLM, buildImageTextToText, type LanguageModel } from "../src/models/index.ts";

/** What one row of a batch is: text of a length, or a picture with a prompt and what is to be written about it, in tokens. */
export type RowShape =
  | { readonly kind: "text"; readonly sequence: number }
  | { readonly kind: "picture"; readonly size: number; readonly prompt: number; readonly target: number };

/** A model's shape, and the rows to measure it with. */
export type ModelShape = {
  /** Its config.json. Without dropout, so that losses can be compared. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly row: RowShape;
};

/** Embeddings are tied, as in SmolLM2. */
const llama = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 0,
};

const florence2 = (text: object, vision: object): Record<string, unknown> => ({
  architectures: ["Florence2ForConditionalGeneration"],
  model_type: "florence2",
  tie_word_embeddings: true,
  is_encoder_decoder: true,
  image_token_id: 3,
  text_config: { model_type: "bart", is_encoder_decoder: true, dropout: 0, ...text },
  vision_config: { model_type: "florence_vision", drop_path_rate: 0, ...vision },
});

const modelShapes = {
  /** HuggingFaceTB/SmolLM2-135M. */
  "smollm2-135m": {
    config: {
      ...llama,
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      max_position_embeddings: 8192,
      rope_theta: 100000,
    },
    row: { kind: "text", sequence: 256 },
  },
  /** A quarter of SmolLM2-135M: half as wide and half as deep, with as many words. For the series of model sizes. */
  "smollm2-quarter": {
    config: {
      ...llama,
      vocab_size: 49152,
      hidden_size: 288,
      intermediate_size: 768,
      num_hidden_layers: 15,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      max_position_embeddings: 8192,
      rope_theta: 100000,
    },
    row: { kind: "text", sequence: 256 },
  },
  /** Qwen/Qwen2.5-0.5B. */
  "qwen2.5-0.5b": {
    config: {
      architectures: ["Qwen2ForCausalLM"],
      model_type: "qwen2",
      hidden_act: "silu",
      vocab_size: 151936,
      hidden_size: 896,
      intermediate_size: 4864,
      num_hidden_layers: 24,
      num_attention_heads: 14,
      num_key_value_heads: 2,
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000,
      tie_word_embeddings: true,
      use_sliding_window: false,
      bos_token_id: 151643,
      eos_token_id: 151643,
    },
    row: { kind: "text", sequence: 256 },
  },
  /** microsoft/Florence-2-base. */
  "florence2-base": {
    config: florence2(
      {
        vocab_size: 51289,
        d_model: 768,
        encoder_layers: 6,
        encoder_attention_heads: 12,
        encoder_ffn_dim: 3072,
        decoder_layers: 6,
        decoder_attention_heads: 12,
        decoder_ffn_dim: 3072,
        max_position_embeddings: 1024,
      },
      { projection_dim: 768 },
    ),
    row: { kind: "picture", size: 768, prompt: 10, target: 32 },
  },
  /** For seeing that the benchmark works; the numbers of toys mean nothing. */
  toy: {
    config: {
      ...llama,
      vocab_size: 2048,
      hidden_size: 64,
      intermediate_size: 192,
      num_hidden_layers: 4,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      max_position_embeddings: 1024,
      rope_theta: 10000,
    },
    row: { kind: "text", sequence: 64 },
  },
  "florence2-toy": {
    config: florence2(
      {
        vocab_size: 2048,
        d_model: 32,
        encoder_layers: 3,
        encoder_attention_heads: 2,
        encoder_ffn_dim: 64,
        decoder_layers: 2,
        decoder_attention_heads: 2,
        decoder_ffn_dim: 64,
        max_position_embeddings: 128,
      },
      {
        embed_dim: [16, 16, 32, 32],
        num_heads: [2, 2, 2, 2],
        num_groups: [2, 2, 2, 2],
        depths: [1, 1, 1, 1],
        projection_dim: 32,
      },
    ),
    row: { kind: "picture", size: 64, prompt: 6, target: 8 },
  },
} satisfies Record<string, ModelShape>;

export type ShapeName = keyof typeof modelShapes;
export const shapes: Readonly<Record<ShapeName, ModelShape>> = modelShapes;

/** The model without weights, as one that was loaded from a checkpoint without tensors. */
export function emptyModel(config: ModelShape["config"]): LanguageModel {
  const build = config["model_type"] === "florence2" ? buildImageTextToText : buildCausalLM;
  const { model } = build(config, "config.json");
  const name = String(config["model_type"]);
  const checkpoint = { name, tensors: new Map(), metadata: {} };
  model.origin = { name, config, checkpoint, generationConfig: undefined, warnings: [] };
  return model;
}

/** Names and shapes of the checkpoint's tensors. */
export function tensorShapes(config: ModelShape["config"]): Map<string, readonly number[]> {
  const model = emptyModel(config);
  const tensors = new Map<string, readonly number[]>();
  for (const [{ shape }, [name]] of model.parameterPaths()) tensors.set(name, shape);
  for (const [name, { shape }] of model.namedBuffers()) tensors.set(name, shape);
  return tensors;
}

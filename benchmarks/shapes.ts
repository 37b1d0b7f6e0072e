/** A Llama model's config.json, as far as it matters here. */
export type LlamaShape = {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly max_position_embeddings: number;
  readonly rope_theta: number;
};

export const shapes = {
  /** HuggingFaceTB/SmolLM2-135M. */
  "smollm2-135m": {
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 8192,
    rope_theta: 100000,
  },
  /** For seeing that the benchmark works; its numbers mean nothing. */
  toy: {
    vocab_size: 2048,
    hidden_size: 64,
    intermediate_size: 192,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 1024,
    rope_theta: 10000,
  },
} as const satisfies Record<string, LlamaShape>;

export type ShapeName = keyof typeof shapes;

/** The whole config.json: embeddings are tied, as in SmolLM2. */
export const configOf = (shape: LlamaShape, dtype: string): Record<string, unknown> => ({
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  ...shape,
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  attention_bias: false,
  mlp_bias: false,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 0,
  torch_dtype: dtype,
});

/** Names and shapes of the checkpoint's tensors. */
export function tensorShapes(shape: LlamaShape): Map<string, readonly number[]> {
  const { vocab_size, hidden_size: hidden, intermediate_size: inner } = shape;
  const headSize = hidden / shape.num_attention_heads;
  const keyValue = headSize * shape.num_key_value_heads;
  const tensors = new Map<string, readonly number[]>([["model.embed_tokens.weight", [vocab_size, hidden]]]);
  for (let layer = 0; layer < shape.num_hidden_layers; layer++) {
    const add = (name: string, ...size: number[]) =>
      tensors.set(`model.layers.${layer}.${name}.weight`, size);
    add("self_attn.q_proj", hidden, hidden);
    add("self_attn.k_proj", keyValue, hidden);
    add("self_attn.v_proj", keyValue, hidden);
    add("self_attn.o_proj", hidden, hidden);
    add("mlp.gate_proj", inner, hidden);
    add("mlp.up_proj", inner, hidden);
    add("mlp.down_proj", hidden, inner);
    add("input_layernorm", hidden);
    add("post_attention_layernorm", hidden);
  }
  return tensors.set("model.norm.weight", [hidden]);
}

import type { TensorInfo } from "./types.ts";

/** Children of a module in the order in which models usually have them: what comes in, blocks, what goes out. */
const usual: readonly string[] = (
  "shared embed_tokens tok_embeddings word_embeddings embed_in wte tokens_embed token_embedding embeddings embedder " +
  "embed_positions position_embeddings position_embedding wpe positions_embed token_type_embeddings patch_embed " +
  "patch_embeddings patch_embedding stem conv_stem conv1 conv2 visual vision_model vision_tower text_model " +
  "multi_modal_projector connector model transformer backbone bert roberta language_model encoder decoder " +
  "ln_1 norm1 layer_norm1 layernorm_before input_layernorm attn attention self_attn self_attention SelfAttention " +
  "EncDecAttention encoder_attn cross_attn crossattention query key value q_proj k_proj v_proj q k v q_lin k_lin " +
  "v_lin qkv qkv_proj c_attn query_key_value q_norm k_norm o_proj out_proj o out_lin c_proj proj self_attn_layer_norm " +
  "sa_layer_norm encoder_attn_layer_norm ln_2 norm2 layer_norm2 layernorm_after post_attention_layernorm intermediate " +
  "mlp ffn feed_forward block_sparse_moe gate router experts shared_expert shared_experts shared_expert_gate " +
  "gate_up_proj gate_proj up_proj w1 w3 wi wi_0 wi_1 c_fc fc1 lin1 dense_h_to_4h dense down_proj w2 wo fc2 lin2 " +
  "dense_4h_to_h output LayerNorm final_layer_norm output_layer_norm layers layer h block blocks stages norm ln_f " +
  "layer_norm layernorm post_layernorm layernorm_embedding pooler pre_classifier text_projection visual_projection " +
  "classifier score cls qa_outputs lm_head head proj_out output_projection embed_out"
).split(" ");
const ranks: ReadonlyMap<string, number> = new Map(usual.map((name, i) => [name, i]));

/** Blocks stand between embeddings and the final norm. */
const unknownRank = ranks.get("layers")! - 0.5;

const digits = /^(?:0|[1-9]\d*)$/;

/** Sorts children: numbers by value, names as models usually have them. */
export function compareUsual(a: string, b: string): number {
  if (digits.test(a) && digits.test(b)) return Number(a) - Number(b);
  const difference = (ranks.get(a) ?? unknownRank) - (ranks.get(b) ?? unknownRank);
  if (difference !== 0) return difference;
  return a.localeCompare(b, "en", { numeric: true });
}

/** Sorts items by the numbers that their names are; false if one is no number, and then nothing is changed. */
export function sortNumbered(items: { readonly leaf: string }[]): boolean {
  const numbers = new Map<{ readonly leaf: string }, number>();
  for (const item of items) {
    if (!digits.test(item.leaf)) return false;
    numbers.set(item, Number(item.leaf));
  }
  items.sort((a, b) => numbers.get(a)! - numbers.get(b)!);
  return true;
}

/** Sorts children by where they came first, but numbers by value. */
export function compareNumbers(a: string, b: string): number {
  return digits.test(a) && digits.test(b) ? Number(a) - Number(b) : 0;
}

/**
 * Whether the order of the tensors is only that of the alphabet, as the writer of safetensors sorts them, and so
 * says nothing about the model. Tensors of one dtype stand together there.
 */
export function isAlphabetical(tensors: readonly TensorInfo[]): boolean {
  let descents = 0;
  let pairs = 0;
  for (let i = 1; i < tensors.length; i++) {
    const [before, after] = [tensors[i - 1]!, tensors[i]!];
    if (before.dtype !== after.dtype) continue;
    pairs++;
    if (before.name > after.name) descents++;
  }
  return descents <= pairs * 0.02;
}

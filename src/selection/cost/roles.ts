import { leafOf, parentOf } from "../python.ts";

/** What a layer computes in its block. */
export type Role =
  | "q"
  | "k"
  | "v"
  /** Queries, keys and values in one. */
  | "qkv"
  /** The narrow first halves of low-rank queries, and of low-rank keys and values; keys and values in one. */
  | "qDown"
  | "kvDown"
  | "kv"
  /** From attended values back to the block's width. */
  | "o"
  | "gate"
  | "up"
  | "gateUp"
  /** The first of two layers without a gate. */
  | "in"
  | "down"
  | "router"
  /** One layer after the other. */
  | "chain";

const byLeaf: Readonly<Record<string, Role>> = {
  q_proj: "q",
  q: "q",
  query: "q",
  q_lin: "q",
  query_proj: "q",
  wq: "q",
  to_q: "q",
  q_b_proj: "q",
  q_up_proj: "q",
  k_proj: "k",
  k: "k",
  key: "k",
  k_lin: "k",
  key_proj: "k",
  wk: "k",
  to_k: "k",
  v_proj: "v",
  v: "v",
  value: "v",
  v_lin: "v",
  value_proj: "v",
  wv: "v",
  to_v: "v",
  qkv: "qkv",
  qkv_proj: "qkv",
  query_key_value: "qkv",
  c_attn: "qkv",
  Wqkv: "qkv",
  wqkv: "qkv",
  q_a_proj: "qDown",
  q_down_proj: "qDown",
  kv_a_proj_with_mqa: "kvDown",
  kv_a_proj: "kvDown",
  kv_b_proj: "kv",
  o_proj: "o",
  o: "o",
  out_proj: "o",
  out_lin: "o",
  gate_proj: "gate",
  wi_0: "gate",
  up_proj: "up",
  w3: "up",
  wi_1: "up",
  gate_up_proj: "gateUp",
  fc1: "in",
  lin1: "in",
  linear1: "in",
  c_fc: "in",
  fc_in: "in",
  wi: "in",
  dense_h_to_4h: "in",
  intermediate_dense: "in",
  down_proj: "down",
  fc2: "down",
  lin2: "down",
  linear2: "down",
  fc_out: "down",
  w2: "down",
  dense_4h_to_h: "down",
  output_dense: "down",
  router: "router",
};

const attention = /attn|attention/i;

/** The role that a module's name gives it; the numbers of lists do not matter. Those of unknown names follow each other. */
export function roleOf(name: string): Role {
  const leaf = leafOf(name);
  const known = byLeaf[leaf];
  if (known !== undefined) return known;
  const parent = leafOf(parentOf(name));
  const isAttention = attention.test(parent) || attention.test(leafOf(parentOf(parentOf(name))));
  switch (leaf) {
    case "w1": // Mixtral's gate
      return "gate";
    case "gate":
    case "classifier":
      return leaf === "gate" || parent === "router" ? "router" : "chain";
    case "wo":
    case "to_out":
    case "proj":
    case "c_proj":
      return isAttention ? "o" : leaf === "proj" || leaf === "to_out" ? "chain" : "down";
    case "dense": // BERT's three, and the one of Bloom, Falcon and NeoX
      if (parent === "intermediate") return "in";
      if (isAttention) return "o";
      return parent === "output" ? "down" : "chain";
    default:
      return "chain";
  }
}

/** Sees the outputs of the encoder. */
export const isCrossAttention = (name: string): boolean =>
  /encoder_attn|EncDecAttention|cross_?attn|crossattention|cross_attention/i.test(name);

/** Constants of PEFT 0.21 that decide what is selected; checked against PEFT's own by test/selection/defaults. */

type Targets = readonly string[] | string;

const qv: Targets = ["q_proj", "v_proj"];
const fusedQkv: Targets = ["query_key_value"];
const bertLike: Targets = ["query", "value"];

/** Default target modules by model type. A string is a regex. */
export const defaultTargetModules: Readonly<Record<string, Targets>> = {
  t5: ["q", "v"],
  mt5: ["q", "v"],
  bart: qv,
  gpt2: ["c_attn"],
  bloom: fusedQkv,
  "blip-2": ["q", "v", "q_proj", "v_proj"],
  opt: qv,
  gptj: qv,
  gpt_neox: fusedQkv,
  gpt_neo: qv,
  bert: bertLike,
  roberta: bertLike,
  "xlm-roberta": bertLike,
  electra: bertLike,
  "deberta-v2": ["query_proj", "value_proj"],
  deberta: ["in_proj"],
  layoutlm: bertLike,
  llama: qv,
  llama4: qv,
  chatglm: fusedQkv,
  gpt_bigcode: ["c_attn"],
  mpt: ["Wqkv"],
  RefinedWebModel: fusedQkv,
  RefinedWeb: fusedQkv,
  falcon: fusedQkv,
  btlm: ["c_proj", "c_attn"],
  codegen: ["qkv_proj"],
  mistral: qv,
  mixtral: qv,
  stablelm: qv,
  phi: ["q_proj", "v_proj", "fc1", "fc2"],
  gemma: qv,
  gemma2: qv,
  gemma3_text: qv,
  gemma4: ".*language_model\\..*\\.(q_proj|v_proj)",
  qwen2: qv,
  qwen3: qv,
  nemotron_h: ["q_proj", "k_proj", "v_proj", "o_proj"],
  rwkv: ["key", "value", "receptance", "output"],
  rwkv7: ["r_proj", "k_proj", "v_proj", "o_proj", "key", "value"],
};

/** Classification heads of transformers' sequence classifiers. */
export const seqClsHeadNames: readonly string[] = ["score", "classifier"];

/** Last name parts by which PEFT knows embeddings when it checks weight tying and what to save. */
export const embeddingLayerNames: readonly string[] = ["embed_tokens", "lm_head"];

/** Matches nothing on purpose and is no error. */
export const dummyTargetModules = "dummy-target-modules";

/** Lists of target modules at least this long are condensed. */
export const minTargetModulesForShrinking = 20;

/** Heads that a task type adds to `modulesToSave`. */
export const headsByTaskType: Readonly<Record<string, readonly string[]>> = {
  SEQ_CLS: ["classifier", "score"],
  TOKEN_CLS: ["classifier", "score"],
  QUESTION_ANS: ["qa_outputs"],
};

/** Modules that must not be adapted in Mamba-like models. */
export const mambaModelTypes: ReadonlySet<string> = new Set([
  "falcon_h1",
  "mamba",
  "mamba2",
  "falcon_mamba",
  "nemotron_h",
]);
export const mambaForbiddenLeaves: ReadonlySet<string> = new Set(["conv1d", "out_proj"]);

/** How per-expert projections became stacked parameters: old name to new, and which old ones were fused. */
export type MoeRenames = {
  readonly map: Readonly<Record<string, string>>;
  readonly fused: Readonly<Record<string, readonly string[]>>;
};

const mixtral: MoeRenames = {
  map: { gate: "gate.weight", w1: "gate_up_proj", w3: "gate_up_proj", w2: "down_proj" },
  fused: { gate_up_proj: ["w1", "w3"] },
};

const qwen2Moe: MoeRenames = {
  map: {
    gate: "gate.weight",
    gate_proj: "gate_up_proj",
    up_proj: "gate_up_proj",
    down_proj: "down_proj",
  },
  fused: { gate_up_proj: ["gate_proj", "up_proj"] },
};

/** Renames by model type. */
export const moeRenames: Readonly<Record<string, MoeRenames>> = {
  afmoe: qwen2Moe,
  cohere2_moe: qwen2Moe,
  deepseek_v2: qwen2Moe,
  deepseek_v3: qwen2Moe,
  deepseek_v32: qwen2Moe,
  dots1: qwen2Moe,
  ernie4_5_moe: qwen2Moe,
  exaone_moe: qwen2Moe,
  flex_olmo: qwen2Moe,
  glm4_moe: qwen2Moe,
  glm4_moe_lite: qwen2Moe,
  glm4v_moe: qwen2Moe,
  glm_moe_dsa: qwen2Moe,
  hunyuan_v1_moe: qwen2Moe,
  longcat_flash: qwen2Moe,
  mellum: qwen2Moe,
  minimax: mixtral,
  minimax_m2: mixtral,
  mixtral,
  olmoe: qwen2Moe,
  qwen3_moe: qwen2Moe,
  qwen3_next: qwen2Moe,
  qwen3_omni_moe: qwen2Moe,
  qwen3_omni_moe_thinker: qwen2Moe,
  solar_open: qwen2Moe,
};

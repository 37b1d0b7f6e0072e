import type { RawConfig } from "./types.ts";

/**
 * How transformers 5 renames a checkpoint's tensors when it loads them: the model that PEFT sees has the new names.
 * Source: transformers 5.18, conversion_mapping.py, for the model types that are on the Hub in numbers.
 */
export type Rename = readonly [pattern: RegExp, replacement: string];

/** Weights of one expert each, that the model holds stacked: `experts.3.w1.weight` goes into `experts.gate_up_proj`. */
export type ExpertNames = {
  /** Concatenated along the outputs, in this order. */
  readonly gateUp: readonly string[];
  readonly down: string;
  readonly gateUpName: string;
};

export type Conversion = { readonly renames: readonly Rename[]; readonly experts?: ExpertNames };

const gated: ExpertNames = {
  gateUp: ["gate_proj", "up_proj"],
  down: "down_proj",
  gateUpName: "gate_up_proj",
};
const mixtralExperts: ExpertNames = { gateUp: ["w1", "w3"], down: "w2", gateUpName: "gate_up_proj" };

const experts = (types: string, names: ExpertNames, renames: readonly Rename[] = []) =>
  types.split(" ").map((type) => [type, { renames, experts: names }] as const);
const renamed = (types: string, ...renames: readonly Rename[]) =>
  types.split(" ").map((type) => [type, { renames }] as const);

const mlp: Rename = [/\.block_sparse_moe\./, ".mlp."];

const vitLayer: readonly Rename[] = [
  [/attention\.attention\.query\b/, "attention.q_proj"],
  [/attention\.attention\.key\b/, "attention.k_proj"],
  [/attention\.attention\.value\b/, "attention.v_proj"],
  [/attention\.output\.dense\b/, "attention.o_proj"],
];
const oldVit: readonly Rename[] = [
  [/encoder\.layer\./, "layers."],
  ...vitLayer,
  [/intermediate\.dense\b/, "mlp.fc1"],
  [/output\.dense\b/, "mlp.fc2"],
];

const conversions: ReadonlyMap<string, Conversion> = new Map<string, Conversion>([
  ...experts("mixtral minimax minimax_m2", mixtralExperts, [mlp]),
  ...experts("phimoe", mixtralExperts, [mlp, [/\.gate\.weight$/, ".router.weight"]]),
  ...experts("lfm2_moe", mixtralExperts),
  ...experts(
    "qwen2_moe qwen3_moe qwen3_next olmoe flex_olmo deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5_moe glm4_moe " +
      "glm4_moe_lite glm4v_moe glm_moe_dsa longcat_flash solar_open hunyuan_v1_moe afmoe exaone_moe cohere2_moe jamba",
    gated,
  ),
  ...experts("nemotron_h", { gateUp: ["up_proj"], down: "down_proj", gateUpName: "up_proj" }, [
    [/^backbone\./, "model."],
    [/^model\.embedding\./, "model.embeddings."],
  ]),
  ...renamed(
    "granitemoe granitemoeshared granitemoehybrid",
    [/block_sparse_moe\.input_linear\.weight$/, "block_sparse_moe.experts.gate_up_proj"],
    [/block_sparse_moe\.output_linear\.weight$/, "block_sparse_moe.experts.down_proj"],
    [/block_sparse_moe\.router\.layer\.weight$/, "block_sparse_moe.router.weight"],
  ),
  ...renamed("gpt_neox", [/^embed_out\./, "lm_head."]),
  ...renamed(
    "llava aria paligemma aya_vision got_ocr2 gemma3 internvl vipllava mistral3 llava_next llava_next_video " +
      "llava_onevision",
    [/^language_model\.lm_head/, "lm_head"],
    [/^language_model\.model\./, "model.language_model."],
    [/^(language_model|vision_tower|multi_modal_projector|image_newline)\b/, "model.$1"],
    [/^model\.vision_tower\.vision_model\./, "model.vision_tower."],
  ),
  ...renamed(
    "qwen2_vl qwen2_5_vl",
    [/^visual\./, "model.visual."],
    [/^model\.(embed_tokens|layers|norm)\./, "model.language_model.$1."],
  ),
  ...renamed("vit ijepa vit_msn deit vivit audio-spectrogram-transformer", ...oldVit),
  ...renamed("dinov2 dinov2_with_registers", ...vitLayer),
  ...renamed(
    "detr",
    [/\bbackbone\.conv_encoder\./, "backbone."],
    [/\.out_proj\./, ".o_proj."],
    [/\blayers\.(\d+)\.(fc[12])\./, "layers.$1.mlp.$2."],
  ),
  ...renamed(
    "swin",
    [/attention\.self\.query\b/, "attention.q_proj"],
    [/attention\.self\.key\b/, "attention.k_proj"],
    [/attention\.self\.value\b/, "attention.v_proj"],
    [
      /attention\.self\.relative_position_bias_table$/,
      "attention.relative_position_bias.relative_position_bias_table",
    ],
    [/attention\.output\.dense\b/, "attention.o_proj"],
    [/intermediate\.dense\b/, "mlp.fc1"],
    [/output\.dense\b/, "mlp.fc2"],
  ),
  ...renamed(
    "segformer",
    [/encoder\.patch_embeddings\.(\d+)\./, "stages.$1.patch_embeddings."],
    [/encoder\.block\.(\d+)\./, "stages.$1.blocks."],
    [/encoder\.layer_norm\.(\d+)/, "stages.$1.layer_norm"],
    [/attention\.self\.query\b/, "attention.q_proj"],
    [/attention\.self\.key\b/, "attention.k_proj"],
    [/attention\.self\.value\b/, "attention.v_proj"],
    [/attention\.self\.sr\b/, "attention.sequence_reduction.sequence_reduction"],
    [/attention\.self\.layer_norm\b/, "attention.sequence_reduction.layer_norm"],
    [/attention\.output\.dense\b/, "attention.o_proj"],
    [/mlp\.dense1\b/, "mlp.fc1"],
    [/mlp\.dense2\b/, "mlp.fc2"],
    [/layer_norm_1\b/, "layernorm_before"],
    [/layer_norm_2\b/, "layernorm_after"],
    [/decode_head\.linear_c\b/, "decode_head.linear_projections"],
  ),
]);

/** What transformers does to the tensors of such a model, if anything. */
export const conversionOf = (config: RawConfig): Conversion | undefined =>
  conversions.get(String(config["model_type"]));

/** Attribute of a head class under which the base model stands, for types whose base checkpoints are in use. */
const prefixes: ReadonlyMap<string, string> = new Map(
  Object.entries({
    transformer:
      "gpt2 gpt_neo gptj bloom falcon codegen gpt_bigcode mpt ctrl imagegpt xlnet openai-gpt xlm flaubert dbrx",
    bert: "bert big_bird megatron-bert",
    roberta: "roberta xlm-roberta xlm-roberta-xl camembert xmod",
    deberta: "deberta deberta-v2",
    backbone: "mamba falcon_mamba",
    ...Object.fromEntries(
      (
        "albert electra distilbert mpnet esm roformer rembert longformer nystromformer convbert mobilebert funnel " +
        "layoutlm layoutlmv3 biogpt gpt_neox vit deit beit dinov2 swin convnext convnextv2 resnet segformer " +
        "wav2vec2 hubert wavlm videomae"
      )
        .split(" ")
        .map((type) => [type, type]),
    ),
  }).flatMap(([prefix, types]) => types.split(" ").map((type) => [type, prefix] as const)),
);

const heads = /(?:For[A-Z]\w*|LMHeadModel|DoubleHeadsModel|MTModel)$/;

/** Whether the class is a model with a head on it, not the bare one. */
export const isHeadClass = (architecture: string): boolean => heads.test(architecture);

/** The name under which a head class of this type holds the bare model; undefined where it is not known. */
export function basePrefix(config: RawConfig, architecture: string): string | undefined {
  const known = prefixes.get(String(config["model_type"]));
  return known ?? (architecture.endsWith("ForCausalLM") ? "model" : undefined);
}

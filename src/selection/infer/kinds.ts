import type { ModuleExtra, ModuleInfo, ModuleKind, NamedShape } from "../tree.ts";
import type { OwnTensors } from "./quantized.ts";
import { type RawConfig, setting, type TensorInfo } from "./types.ts";

/** What a module is, as far as its tensors and its name tell. */
export type Guess = {
  readonly className: string;
  readonly kind: ModuleKind;
  readonly in: number | null;
  readonly out: number | null;
  readonly parameters: readonly NamedShape[];
  readonly extra?: ModuleExtra;
};

const bufferNames: ReadonlySet<string> = new Set(
  (
    "running_mean running_var num_batches_tracked position_ids token_type_ids inv_freq original_inv_freq masked_bias " +
    "relative_position_index relative_coords_table e_score_correction_bias final_logits_bias cos_cached sin_cached " +
    "freqs_cis rotary_emb attn_mask causal_mask embed_positions pos_idx_to_embed"
  ).split(" "),
);

const integers = /^(?:u?int\d+|bool)$/;

/** Whether a tensor is saved but not trained. */
export function isBuffer(leaf: string, { dtype, shape }: TensorInfo, own: OwnTensors): boolean {
  if (bufferNames.has(leaf)) return true;
  // The causal mask of GPT-2's attention is called "bias".
  if (leaf === "bias" && shape.length === 4 && !own.has("weight")) return true;
  return integers.test(dtype) && leaf !== "weight";
}

/** Settings that hold for the whole model. */
export type Context = {
  readonly config: RawConfig;
  /** c_attn, c_fc and c_proj are transformers' Conv1D, which stores (in, out). */
  readonly usesConv1D: boolean;
  readonly expertCount: number | undefined;
};

/** Names of GPT-2's projections. */
const conv1dLeaf = /^(?:c_attn|c_proj|c_fc|q_attn)$/;

const conv1dTypes = /^(?:gpt2|imagegpt|openai-gpt|decision_transformer|clvp|clvp_decoder)$/;

/** Looks for a projection of GPT-2's that is not square: its bias tells which way round it is stored. */
export function contextOf(
  modules: Iterable<{ readonly leaf: string; readonly own: OwnTensors }>,
  config: RawConfig,
): Context {
  let usesConv1D = conv1dTypes.test(String(config["model_type"]));
  for (const { leaf, own } of modules) {
    if (!conv1dLeaf.test(leaf)) continue;
    const stored = storedOrder(own);
    if (stored === undefined) continue;
    usesConv1D = stored === "in-out";
    break;
  }
  const expertCount = setting(config, "num_local_experts", "num_experts", "n_routed_experts");
  return { config, usesConv1D, expertCount };
}

/** Which way round a weight is stored, where its bias tells. */
function storedOrder(own: OwnTensors): "in-out" | "out-in" | undefined {
  const [weight, bias] = [own.get("weight"), own.get("bias")];
  if (weight?.shape.length !== 2 || bias?.shape.length !== 1) return undefined;
  const [rows, columns] = weight.shape;
  if (rows === columns) return undefined;
  if (bias.shape[0] === rows) return "out-in";
  return bias.shape[0] === columns ? "in-out" : undefined;
}

/** What a module with these tensors is. */
export function guess(path: string, leaf: string, own: OwnTensors, context: Context): ModuleInfo {
  if (own.size === 1 && own.name(0) === "weight" && own.tensor(0).shape.length === 2) {
    const { className, kind, in: inputs, out } = matrix(path, leaf, own, context);
    return { name: path, className, kind, in: inputs, out, parameters: [["weight", own.tensor(0).shape]] };
  }
  return { ...guessKind(path, leaf, own, context), name: path };
}

function guessKind(path: string, leaf: string, own: OwnTensors, context: Context): Guess {
  const parameters: NamedShape[] = [];
  for (let i = 0; i < own.size; i++) {
    const tensor = own.tensor(i);
    const name = own.name(i);
    if (!isBuffer(name, tensor, own)) parameters.push([name, tensor.shape]);
  }
  const weight = own.get("weight");
  const inProjection = own.get("in_proj_weight") ?? own.get("q_proj_weight");
  if (inProjection !== undefined && inProjection.shape.length === 2) {
    const dim = own.has("in_proj_weight") ? inProjection.shape[1]! : inProjection.shape[0]!;
    return { className: "MultiheadAttention", kind: "mha", in: dim, out: 3 * dim, parameters };
  }
  if (weight === undefined) return other(own, parameters);
  const { shape } = weight;
  if (own.has("running_mean") || own.has("running_var")) {
    // A frozen batch norm has its weight as a buffer.
    const frozen = !own.has("num_batches_tracked");
    return { ...plain("norm", "BatchNorm2d"), parameters: frozen ? [] : parameters };
  }
  switch (shape.length) {
    case 0:
    case 1:
      if (/^(?:act|prelu|activation)/.test(leaf) && !own.has("bias"))
        return { ...plain("module", "PReLU"), parameters };
      return { ...plain("norm", own.has("bias") ? "LayerNorm" : "RMSNorm"), parameters };
    case 2:
      return { ...matrix(path, leaf, own, context), parameters };
    default:
      return { ...convolution(path, leaf, own, context), parameters };
  }
}

const plain = (kind: ModuleKind, className: string): Guess => ({
  className,
  kind,
  in: null,
  out: null,
  parameters: [],
});

/** Modules whose parameters have names of their own: stacked experts, embeddings of a class token, scales. */
function other(own: OwnTensors, parameters: readonly NamedShape[]): Guess {
  const isTransposed = storedTransposed(own);
  return {
    ...plain("module", own.has("down_proj") ? "Experts" : "Module"),
    parameters,
    ...(isTransposed === undefined ? {} : { extra: { isTransposed } }),
  };
}

/** Whether stacked experts are stored (experts, in, out), where their shapes tell. */
function storedTransposed(own: OwnTensors): boolean | undefined {
  const [up, down] = [own.get("gate_up_proj")?.shape, own.get("down_proj")?.shape];
  if (up?.length !== 3 || down?.length !== 3) return undefined;
  if (up[2] === down[1] && up[1] === 2 * down[2]!) return false;
  return up[1] === down[2] && up[2] === 2 * down[1]! ? true : undefined;
}

/** A matrix called so is looked up by index. */
const lookupNames: ReadonlySet<string> = new Set(
  (
    "wte wpe shared relative_attention_bias mask_tokens iou_token class_labels_classifier_embed codebook " +
    "tokens_embed positions_embed no_mask_embed not_a_point_embed"
  ).split(" "),
);
const lookupWord = /^(?:embed|embeds|embedding|embeddings|emb|embs)$/;
const projectionWord =
  /^(?:out|proj|project|projection|dense|linear|fc|conv|norm|layernorm|head|mapping|predictor|mlp|gate)$/;

/** Whether a matrix without bias is an embedding, by what it is called. */
export function isLookupName(path: string, leaf: string): boolean {
  if (/^\d+$/.test(leaf)) return isLookupLeaf(leafOf(path.slice(0, -leaf.length - 1)));
  // Of the many modules of a model, few have names of their own.
  let known = lookups.get(leaf);
  if (known === undefined) {
    known = isLookupLeaf(leaf);
    if (lookups.size < 1000) lookups.set(leaf, known);
  }
  return known;
}

const lookups = new Map<string, boolean>();

function isLookupLeaf(leaf: string): boolean {
  if (lookupNames.has(leaf)) return true;
  const words = leaf.toLowerCase().split("_");
  return words.some((word) => lookupWord.test(word)) && !words.some((word) => projectionWord.test(word));
}

function matrix(path: string, leaf: string, own: OwnTensors, { usesConv1D, config }: Context): Guess {
  const [rows, columns] = own.get("weight")!.shape as [number, number];
  const linear: Guess = { className: "Linear", kind: "linear", in: columns, out: rows, parameters: [] };
  if (own.has("bias")) {
    const order = storedOrder(own) ?? (usesConv1D && conv1dLeaf.test(leaf) ? "in-out" : "out-in");
    return order === "in-out"
      ? { ...linear, className: "Conv1D", kind: "conv1d_hf", in: rows, out: columns }
      : linear;
  }
  if (usesConv1D && conv1dLeaf.test(leaf))
    return { ...linear, className: "Conv1D", kind: "conv1d_hf", in: rows, out: columns };
  const vocabulary = setting(config, "vocab_size");
  const isToken = rows === vocabulary && /^(?:tok|token|tokens|word|words|vocab)/.test(leaf);
  if (!isLookupName(path, leaf) && !isToken) return linear;
  return { className: "Embedding", kind: "embedding", in: rows, out: columns, parameters: [] };
}

const convKinds = ["conv1d", "conv2d", "conv3d"] as const;
const transposed =
  /(?:^|_)(?:conv_?transpose\w*|deconv\w*|upscale_conv\w*|upsampler?|up_?conv\w*|upsample_conv)$/i;

/** First layers of a network read pictures or sound of one channel; elsewhere one input channel means depthwise. */
const readsInput = /(?:^|\.)(?:conv_layers\.0|mask_embed|mask_downscaling|patch_embed\w*)(?:\.|$)/;

function convolution(path: string, leaf: string, own: OwnTensors, context: Context): Guess {
  const { shape } = own.get("weight")!;
  const bias = own.get("bias")?.shape;
  const [out, width, ...kernel] = shape as [number, number, ...number[]];
  const kind = convKinds[shape.length - 3];
  const isStack = shape.length === 3 && out === context.expertCount && kernel[0]! > 32;
  if (kind === undefined || isStack || (bias !== undefined && bias.length !== 1))
    return plain("module", "Module");
  const isTransposed = bias !== undefined && bias[0] !== out && bias[0] === width;
  if (isTransposed || transposed.test(leaf)) return plain("module", `ConvTranspose${kernel.length}d`);
  const groups = groupsOf(path, shape, context.config);
  return {
    className: `Conv${kernel.length}d`,
    kind,
    in: width * groups,
    out,
    parameters: [],
    extra: { kernelSize: kernel, groups },
  };
}

/** The weight has inputs / groups: the header alone does not tell them apart. */
export function groupsOf(path: string, shape: readonly number[], config: RawConfig): number {
  const [out, width] = shape as [number, number];
  if (width === 1) return readsInput.test(path) && setting(config, "num_channels") !== out ? 1 : out;
  if (path.includes("pos_conv_embed")) return setting(config, "num_conv_pos_embedding_groups") ?? 16;
  const groupWidth = setting(config, "groups_width");
  const isSpatial = shape.length === 4 && shape[2]! > 1;
  return groupWidth === width && out > width && isSpatial ? out / width : 1;
}

const leafOf = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

import type { ListedModule, ListedModules, OlderLayout } from "../nn/index.ts";
import { FINAL_LOGITS_BIAS, nativeFlorence2Name, olderFlorence2Name } from "./florence2-names.ts";

const PROJECTION = "model.multi_modal_projector.image_projection";
const SHARED = "language_model.model.shared";
const TEMPORAL = "visual_temporal_embed";
const TEMPORAL_BUFFER = "pos_idx_to_embed";

/** Modules of the older class where the native one has one: names, with classes of their own or the native one's kind. */
type Made = readonly (readonly [name: string, className: string] | readonly [name: string, same: true])[];
type Maker = readonly [native: RegExp, make: (match: RegExpExecArray, className: string) => Made];

const HALF = String.raw`^model\.(vision_tower\.blocks\.\d+\.\d+\.(spatial|channel)_block)`;
const attention = (part: string | undefined): string => (part === "spatial" ? "window_attn" : "channel_attn");
const title = (word: string | undefined): string => `${word![0]!.toUpperCase()}${word!.slice(1)}`;

/**
 * What stands where, in the order of both. Around every layer of a block there is a PreNorm, which adds its result to
 * what it was given, and the drop path of the attention's is used by the feed-forward layer's again.
 */
const vision: readonly Maker[] = [
  [/^model\.vision_tower$/, () => [["vision_tower", "DaViT"]]],
  [/^model\.(vision_tower\.(?:convs|blocks))$/, ([, name]) => [[name!, true]]],
  [/^model\.(vision_tower\.convs\.\d+)$/, ([, name]) => [[name!, "ConvEmbed"]]],
  [/^model\.(vision_tower\.blocks\.\d+(?:\.\d+)?)$/, ([, name]) => [[name!, "MySequential"]]],
  [new RegExp(`${HALF}$`), ([, name, part]) => [[name!, `${title(part)}Block`]]],
  [
    new RegExp(String.raw`${HALF}\.(conv[12])$`),
    ([, block, , name]) => [
      [`${block}.${name}`, "PreNorm"],
      [`${block}.${name}.fn`, "DepthWiseConv2d"],
      [`${block}.${name}.fn.dw`, true],
    ],
  ],
  [
    new RegExp(String.raw`${HALF}\.norm1$`),
    ([, block, part]) => [
      [`${block}.${attention(part)}`, "PreNorm"],
      [`${block}.${attention(part)}.norm`, true],
    ],
  ],
  [
    new RegExp(String.raw`${HALF}\.(window|channel)_attn$`),
    ([, block, , name]) => [[`${block}.${name}_attn.fn`, `${title(name)}Attention`]],
  ],
  [
    new RegExp(String.raw`${HALF}\.drop_path1$`),
    ([, block, part], className) => [
      ...(part === "spatial" ? ([[`${block}.window_attn.fn.softmax`, "Softmax"]] as const) : []),
      [`${block}.${attention(part)}.drop_path`, className === "Identity" ? true : "DropPath"],
    ],
  ],
  [
    new RegExp(String.raw`${HALF}\.norm2$`),
    ([, block]) => [
      [`${block}.ffn`, "PreNorm"],
      [`${block}.ffn.norm`, true],
    ],
  ],
  [
    new RegExp(String.raw`${HALF}\.ffn$`),
    ([, block]) => [
      [`${block}.ffn.fn`, "Mlp"],
      [`${block}.ffn.fn.net`, "Sequential"],
    ],
  ],
  [
    new RegExp(String.raw`${HALF}\.ffn\.fc1$`),
    ([, block]) => [
      [`${block}.ffn.fn.net.fc1`, true],
      [`${block}.ffn.fn.net.act`, "GELU"],
    ],
  ],
];

const others: readonly Maker[] = [
  // the vision tower is complete where the projector begins
  [/^model\.multi_modal_projector$/, () => [["vision_tower.avgpool", "AdaptiveAvgPool1d"]]],
  [
    /^model\.multi_modal_projector\.image_position_embed$/,
    () => [["image_pos_embed", "LearnedAbsolutePositionEmbedding2D"]],
  ],
  [
    /^model\.multi_modal_projector\.visual_temporal_embed$/,
    () => [[TEMPORAL, "PositionalEmbeddingCosine1D"]],
  ],
  [
    /^model\.language_model$/,
    () => [
      ["language_model", "Florence2LanguageForConditionalGeneration"],
      ["language_model.model", "Florence2LanguageModel"],
    ],
  ],
];

/** Native modules that the older class has none for; the feed-forward layer's drop path is the attention's. */
const absent = new RegExp(
  String.raw`^model$|^${PROJECTION.replaceAll(".", String.raw`\.`)}$|${HALF}\.(?:ffn\.activation_fn|drop_path2)$`,
);
const shared = new RegExp(String.raw`${HALF}\.drop_path2$`);

/** As the older class is called, in the language model and for what is alike. */
function olderClass(name: string, className: string): string {
  if (name === SHARED) return "Embedding";
  return className === "BartAttention" ? "Florence2SdpaAttention" : className.replace(/^Bart/, "Florence2");
}

function modules(
  native: readonly ListedModule[],
  { tied, stateDict }: { tied: boolean; stateDict: readonly (readonly [string, readonly number[]])[] },
): ListedModules {
  const made: ListedModule[] = [];
  const duplicateModules: [string, string][] = [];
  const makers = [...vision, ...others];
  const plain = { kind: "module", in: null, out: null, parameters: [] };
  const projection = native.find(({ name }) => name === PROJECTION)?.parameters[0]?.[1];
  for (const module of native) {
    const { name, className } = module;
    if (name === "") {
      made.push({ ...module, parameters: projection ? [["image_projection", projection.toReversed()]] : [] });
      continue;
    }
    const block = shared.exec(name);
    if (block)
      duplicateModules.push([`${block[1]}.ffn.drop_path`, `${block[1]}.${attention(block[2])}.drop_path`]);
    if (absent.test(name)) continue;
    const [pattern, make] = makers.find(([pattern]) => pattern.test(name)) ?? [];
    if (pattern && make) {
      for (const [older, own] of make(pattern.exec(name)!, className))
        made.push(own === true ? { ...module, name: older } : { ...plain, name: older, className: own });
      continue;
    }
    const older = olderFlorence2Name(name);
    if (older !== undefined) made.push({ ...module, name: older, className: olderClass(older, className) });
  }
  const vocabulary = made.find(({ name }) => name === SHARED)?.in ?? 0;
  const temporal = stateDict.find(([name]) => name.endsWith(`${TEMPORAL}.${TEMPORAL_BUFFER}`))?.[1];
  return {
    modules: made,
    duplicateModules,
    buffers: new Map([
      ["language_model", [["final_logits_bias", [1, vocabulary]] as const]],
      ...(temporal ? ([[TEMPORAL, [[TEMPORAL_BUFFER, temporal] as const]]] as const) : []),
    ]),
    inputEmbeddings: SHARED,
    // The older class does not say, so that all-linear takes the head too.
    outputEmbeddings: null,
    // As it declares them, without the segment "model".
    tiedWithEmbedding: tied
      ? ["decoder.embed_tokens", "encoder.embed_tokens", "lm_head"].map((name) => `language_model.${name}`)
      : [],
  };
}

/** The layout of modeling_florence2.py, as published beside microsoft/Florence-2-base and -large. */
export const florence2OlderLayout: OlderLayout = {
  naming: "remote-code",
  owner: "the code that came with older Florence-2 checkpoints",
  toOlder: olderFlorence2Name,
  toNative: nativeFlorence2Name,
  whyNot: (native) =>
    native === PROJECTION ? "it is a bare parameter there, image_projection, and no layer" : undefined,
  zeros: new Set([FINAL_LOGITS_BIAS]),
  python: { className: "AutoModelForCausalLM", loading: "trust_remote_code=True" },
  isAutoMapping: ({ parent_library: library }) =>
    typeof library === "string" &&
    /(^|\.)modeling_florence2$/.test(library) &&
    !/^transformers\./.test(library),
  modules,
};

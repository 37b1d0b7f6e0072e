/**
 * The names of Florence-2's modules in the code that came with its checkpoints ("remote code"), and transformers' own.
 * Source: transformers models/florence2/convert_florence2_original_pytorch_to_hf.py.
 */

type Rule = readonly [older: RegExp, native: string];

const VISION = String.raw`^vision_tower\.blocks\.(\d+)\.(\d+)\.(spatial|channel)_block\.`;
const HALF = "model.vision_tower.blocks.$1.$2.$3_block.";

/** Beginnings of names; what follows (`.weight`, the parts of an adapter) stays. */
const toNative: readonly Rule[] = [
  [/^vision_tower\.convs\.(\d+)\.proj(?=\.|$)/, "model.vision_tower.convs.$1.conv"],
  [/^vision_tower\.convs\.(\d+)\.norm(?=\.|$)/, "model.vision_tower.convs.$1.norm"],
  [new RegExp(String.raw`${VISION}conv([12])\.fn\.dw(?=\.|$)`), `${HALF}conv$4`],
  [new RegExp(String.raw`${VISION}(?:window|channel)_attn\.norm(?=\.|$)`), `${HALF}norm1`],
  [new RegExp(String.raw`${VISION}(window|channel)_attn\.fn\.(qkv|proj)(?=\.|$)`), `${HALF}$4_attn.$5`],
  [new RegExp(String.raw`${VISION}ffn\.norm(?=\.|$)`), `${HALF}norm2`],
  [new RegExp(String.raw`${VISION}ffn\.fn\.net\.(fc[12])(?=\.|$)`), `${HALF}ffn.$4`],
  [/^image_projection$/, "model.multi_modal_projector.image_projection.weight"],
  [/^image_proj_norm(?=\.|$)/, "model.multi_modal_projector.image_proj_norm"],
  [/^image_pos_embed(?=\.|$)/, "model.multi_modal_projector.image_position_embed"],
  [/^visual_temporal_embed(?=\.|$)/, "model.multi_modal_projector.visual_temporal_embed"],
  [/^language_model\.model(?=\.|$)/, "model.language_model"],
  [/^language_model\.lm_head(?=\.|$)/, "lm_head"],
];

const NATIVE = String.raw`^model\.vision_tower\.blocks\.(\d+)\.(\d+)\.(spatial|channel)_block\.`;
const OLDER = "vision_tower.blocks.$1.$2.$3_block.";
const nativeAttention = (half: "spatial" | "channel", name: string): readonly Rule[] => {
  const start = String.raw`^model\.vision_tower\.blocks\.(\d+)\.(\d+)\.${half}_block\.`;
  const older = `vision_tower.blocks.$1.$2.${half}_block.${name}_attn`;
  return [
    [new RegExp(String.raw`${start}norm1(?=\.|$)`), `${older}.norm`],
    [new RegExp(String.raw`${start}${name}_attn\.(qkv|proj)(?=\.|$)`), `${older}.fn.$3`],
  ];
};

const toOlder: readonly Rule[] = [
  [/^model\.vision_tower\.convs\.(\d+)\.conv(?=\.|$)/, "vision_tower.convs.$1.proj"],
  [/^model\.vision_tower\.convs\.(\d+)\.norm(?=\.|$)/, "vision_tower.convs.$1.norm"],
  [new RegExp(String.raw`${NATIVE}conv([12])(?=\.|$)`), `${OLDER}conv$4.fn.dw`],
  ...nativeAttention("spatial", "window"),
  ...nativeAttention("channel", "channel"),
  [new RegExp(String.raw`${NATIVE}norm2(?=\.|$)`), `${OLDER}ffn.norm`],
  [new RegExp(String.raw`${NATIVE}ffn\.(fc[12])(?=\.|$)`), `${OLDER}ffn.fn.net.$4`],
  [/^model\.multi_modal_projector\.image_projection\.weight$/, "image_projection"],
  [/^model\.multi_modal_projector\.image_proj_norm(?=\.|$)/, "image_proj_norm"],
  [/^model\.multi_modal_projector\.image_position_embed(?=\.|$)/, "image_pos_embed"],
  [/^model\.multi_modal_projector\.visual_temporal_embed(?=\.|$)/, "visual_temporal_embed"],
  [/^model\.language_model(?=\.|$)/, "language_model.model"],
  [/^lm_head(?=\.|$)/, "language_model.lm_head"],
];

function rename(name: string, rules: readonly Rule[]): string | undefined {
  const rule = rules.find(([pattern]) => pattern.test(name));
  return rule && name.replace(rule[0], rule[1]);
}

/**
 * transformers' name of a module, a parameter or a part of an adapter that has an older name; undefined if it is none.
 * The projection is a parameter there, and a layer here: its tensor is to be transposed.
 */
export const nativeFlorence2Name = (older: string): string | undefined => rename(older, toNative);

/** The older name of what transformers calls `native`; undefined if there is none. */
export const olderFlorence2Name = (native: string): string | undefined => rename(native, toOlder);

/** A bias of the logits, zero in every published checkpoint, that transformers' class does not have. */
export const FINAL_LOGITS_BIAS = "language_model.final_logits_bias";

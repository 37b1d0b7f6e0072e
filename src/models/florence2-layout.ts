import {
  type ByteSource,
  bytesSource,
  type Checkpoint,
  readTensor,
  type TensorEntry,
} from "../checkpoint/index.ts";
import { UnsupportedModelError } from "../errors.ts";
import { FINAL_LOGITS_BIAS, nativeFlorence2Name } from "./florence2-names.ts";
import type { ConvertedCheckpoint } from "./registry.ts";

/**
 * Checkpoints and configurations of Florence-2 that came with their own code ("remote code"), in transformers' layout.
 * Source: transformers models/florence2/convert_florence2_original_pytorch_to_hf.py.
 */

type Json = Readonly<Record<string, unknown>>;
/** Whether the tensors have the older names. */
const isOlder = ({ tensors }: Checkpoint): boolean =>
  tensors.has("image_projection") ||
  tensors.has("vision_tower.convs.0.proj.weight") ||
  [...tensors.keys()].some((name) => name.startsWith("language_model.model."));

/**
 * The checkpoint with transformers' names. Tensors stay where they are, but for the projection, which is transposed when it
 * is read. Nothing is read here.
 */
export function nativeFlorence2Checkpoint(checkpoint: Checkpoint): ConvertedCheckpoint {
  if (!isOlder(checkpoint)) return { checkpoint, made: new Set() };
  const tensors = new Map<string, TensorEntry>();
  const made = new Set<string>();
  for (const [older, entry] of checkpoint.tensors) {
    if (older === FINAL_LOGITS_BIAS) continue;
    const name = nativeFlorence2Name(older) ?? older;
    const turn = older === "image_projection" && entry.shape.length === 2;
    if (turn) made.add(name);
    tensors.set(name, turn ? { ...transposed(entry), name } : { ...entry, name });
  }
  return { checkpoint: { ...checkpoint, tensors }, made };
}

/** The transpose of a matrix, in its own dtype, made in memory at every read. */
function transposed(entry: TensorEntry): TensorEntry {
  const [rows, columns] = entry.shape as [number, number];
  const name = `${entry.source.name}, ${entry.name}`;
  const source: ByteSource = {
    name,
    size: entry.byteLength,
    async read(start, end, options) {
      const { data } = await readTensor(entry, options);
      const turned = data.slice();
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++)
          turned[column * rows + row] = data[row * columns + column]!;
      const bytes = new Uint8Array(turned.buffer, turned.byteOffset, turned.byteLength);
      return bytesSource(name, bytes).read(start, end, options);
    },
  };
  return { ...entry, shape: [columns, rows], source, byteOffset: 0 };
}

/** As the remote code's DaViT has them. */
const olderVisionDefaults = {
  dim_embed: [256, 512, 1024, 2048],
  num_heads: [8, 16, 32, 64],
  num_groups: [8, 16, 32, 64],
  image_feature_source: ["spatial_avg_pool", "temporal_avg_pool"],
};
/** Of the remote code's DaViT; they say nothing about the computation, or native fields are made of them. */
export const olderVisionFields: ReadonlySet<string> = new Set([
  "dim_embed",
  "enable_checkpoint",
  "image_feature_source",
  "image_pos_embed",
  "model_type",
  "visual_temporal_embedding",
]);
const olderTopFields = new Set(["auto_map", "ignore_index", "projection_dim", "vocab_size"]);
const OLDER_VOCABULARY = 51289;

/**
 * transformers' configuration of a Florence-2, from either layout's config.json.
 * The picture's token, which the older layout lacks, is the one after its vocabulary, as the tokenizer gets it.
 * @throws UnsupportedModelError for a configuration of remote code that is not Florence-2's as published.
 */
export function nativeFlorence2Config(raw: Json, file: string): Json {
  const vision = objectOf(raw["vision_config"]);
  const text = objectOf(raw["text_config"]);
  // What the conversion script made has the older fields besides.
  if (vision["embed_dim"] !== undefined || vision["model_type"] === "florence_vision") return raw;
  const isOlderConfig =
    vision["dim_embed"] !== undefined ||
    vision["model_type"] === "davit" ||
    text["model_type"] === "florence2_language";
  if (!isOlderConfig) {
    if (raw["auto_map"] === undefined) return raw;
    throw notUnderstood(file, ["vision_config is neither transformers' nor DaViT's (dim_embed)"]);
  }
  const all: Json = { ...olderVisionDefaults, ...vision };
  const problems = olderVisionProblems(all);
  if (problems.length > 0) throw notUnderstood(file, problems);
  const kept = (fields: Json, without: ReadonlySet<string>): Json =>
    Object.fromEntries(Object.entries(fields).filter(([name]) => !without.has(name)));
  const language: Json = { vocab_size: OLDER_VOCABULARY, ...text, model_type: "bart" };
  return {
    image_token_id: language["vocab_size"],
    ...kept(raw, olderTopFields),
    text_config: language,
    vision_config: {
      ...kept(all, olderVisionFields),
      model_type: "florence_vision",
      embed_dim: all["dim_embed"],
      max_temporal_embeddings: objectOf(all["visual_temporal_embedding"])["max_temporal_embeddings"],
      max_position_embeddings: objectOf(all["image_pos_embed"])["max_pos_embeddings"],
    },
  };
}

function olderVisionProblems(vision: Json): string[] {
  const problems: string[] = [];
  const only = (name: string, value: unknown, expected: unknown): void => {
    const [given, wanted] = [JSON.stringify(value), JSON.stringify(expected)];
    if (given !== wanted) problems.push(`${name} is ${given ?? "missing"} (only ${wanted} is implemented)`);
  };
  only("image_pos_embed.type", objectOf(vision["image_pos_embed"])["type"], "learned_abs_2d");
  only("visual_temporal_embedding.type", objectOf(vision["visual_temporal_embedding"])["type"], "COSINE");
  only("image_feature_source", vision["image_feature_source"], olderVisionDefaults.image_feature_source);
  for (const name of ["conv_at_attn", "conv_at_ffn"]) only(name, vision[name] ?? true, true);
  return problems.map((problem) => `vision_config.${problem}`);
}

const objectOf = (value: unknown): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};

function notUnderstood(file: string, problems: readonly string[]): UnsupportedModelError {
  return new UnsupportedModelError(
    `${file}: a Florence-2 that is written for its own code, in a form that Graft does not know: ${problems.join("; ")}. ` +
      "Convert it with transformers' convert_florence2_original_pytorch_to_hf.py.",
    { code: "unsupported-config", details: { file, problems } },
  );
}

import type { Checkpoint } from "../checkpoint/index.ts";
import { nearest, UnsupportedModelError } from "../errors.ts";
import { bart } from "./bart.ts";
import type { CausalLM } from "./causal-lm.ts";
import { florence2 } from "./florence2.ts";
import type { ImageTextToTextLM } from "./image-text-lm.ts";
import type { LanguageModel } from "./language-model.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import type { Seq2SeqLM } from "./seq2seq-lm.ts";

/** A checkpoint with the model's own names; `made` are the names of tensors that do not lie in its files as they are. */
export type ConvertedCheckpoint = { readonly checkpoint: Checkpoint; readonly made: ReadonlySet<string> };

/** A model without weights. */
export type BuiltModel<M extends LanguageModel> = {
  readonly model: M;
  readonly warnings: string[];
  /** The configuration as the model has it, where the file is in an older layout. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Brings a checkpoint that may be in an older layout into the model's; reads no tensor. */
  readonly convert?: (checkpoint: Checkpoint) => ConvertedCheckpoint;
};

/** Builds a model's module tree, without weights, from its config.json; `file` is for messages. */
export type ModelBuilder<M extends LanguageModel = CausalLM> = (
  config: Readonly<Record<string, unknown>>,
  file: string,
) => BuiltModel<M>;

/** By `model_type`. */
type Registry<M extends LanguageModel> = Readonly<Record<string, ModelBuilder<M>>>;
const causalModels: Registry<CausalLM> = { llama, mistral, qwen2, qwen3 };

/** Model types that can be loaded as causal language models. */
export const causalModelTypes: readonly string[] = Object.keys(causalModels);

const seq2seqModels: Registry<Seq2SeqLM> = { bart };

/** Model types that can be loaded as encoder–decoders. */
export const seq2seqModelTypes: readonly string[] = Object.keys(seq2seqModels);

const imageTextModels: Registry<ImageTextToTextLM> = { florence2 };

/** Model types that can be loaded as encoder–decoders that read pictures. */
export const imageTextModelTypes: readonly string[] = Object.keys(imageTextModels);

/** @throws UnsupportedModelError for a type, or a setting of its config.json, that is not implemented. */
export const buildCausalLM = (config: unknown, file: string): BuiltModel<CausalLM> =>
  build(causalModels, config, file);

/** @throws UnsupportedModelError for a type, or a setting of its config.json, that is not implemented. */
export const buildSeq2SeqLM = (config: unknown, file: string): BuiltModel<Seq2SeqLM> =>
  build(seq2seqModels, config, file);

/** @throws UnsupportedModelError for a type, or a setting of its config.json, that is not implemented. */
export const buildImageTextToText = (config: unknown, file: string): BuiltModel<ImageTextToTextLM> =>
  build(imageTextModels, config, file);

/** Any model that can be trained. @throws UnsupportedModelError as the others. */
export const buildLanguageModel = (config: unknown, file: string): BuiltModel<LanguageModel> =>
  build<LanguageModel>({ ...causalModels, ...seq2seqModels, ...imageTextModels }, config, file);

function build<M extends LanguageModel>(models: Registry<M>, config: unknown, file: string): BuiltModel<M> {
  const implemented = Object.keys(models);
  const raw = config as Readonly<Record<string, unknown>>;
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new UnsupportedModelError(`${file}: expected a JSON object.`, {
      code: "unsupported-config",
      details: { file },
    });
  const type = raw["model_type"];
  const builder = typeof type === "string" && Object.hasOwn(models, type) ? models[type] : undefined;
  if (builder) return builder(raw, file);
  const close = nearest(String(type), implemented, 1)[0];
  throw new UnsupportedModelError(
    type === undefined
      ? `${file}: there is no model_type. Implemented: ${implemented.join(", ")}.`
      : `${file}: model_type "${String(type)}" is not implemented.${close ? ` Did you mean "${close}"?` : ""} Implemented: ${implemented.join(", ")}.`,
    { code: "unknown-model-type", details: { file, modelType: type, implemented } },
  );
}

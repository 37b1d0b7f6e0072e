import { z } from "zod";
import { nearest, UnsupportedModelError } from "../errors.ts";
import { activationNames } from "../nn/index.ts";

/** A size or number of things. */
export const count = z.number().int().positive();
export const tokenIds = z.union([z.number().int(), z.array(z.number().int())]).nullish();

/** Fields that say nothing about the computation, or that other fields are read from. */
const inert = new Set([
  "_attn_implementation_autoset",
  "_attn_implementation_internal",
  "_commit_hash",
  "_name_or_path",
  "add_cross_attention",
  "architectures",
  "auto_map",
  "chunk_size_feed_forward",
  "dtype",
  "finetuning_task",
  "id2label",
  "initializer_range",
  "is_decoder",
  "is_encoder_decoder",
  "is_llama_config",
  "label2id",
  "max_window_layers",
  "original_max_position_embeddings",
  "output_attentions",
  "output_hidden_states",
  "partial_rotary_factor",
  "prefix",
  "pretraining_tp",
  "problem_type",
  "pruned_heads",
  "return_dict",
  "return_dict_in_generate",
  "rope_parameters",
  "rope_scaling",
  "rope_theta",
  "sep_token_id",
  "task_specific_params",
  "tf_legacy_loss",
  "tie_encoder_decoder",
  "tokenizer_class",
  "torch_dtype",
  "torchscript",
  "transformers.js_config",
  "transformers_version",
  "typical_p",
  "unsloth_fixed",
  "unsloth_version",
  "use_bfloat16",
  "use_cache",
  "cross_attention_hidden_size",
  "decoder_start_token_id",
  "layer_types",
]);

/** Generation defaults of transformers 4's configurations; they mean nothing to the forward pass. */
const generationFields = new Set([
  "bad_words_ids",
  "begin_suppress_tokens",
  "diversity_penalty",
  "do_sample",
  "early_stopping",
  "encoder_no_repeat_ngram_size",
  "exponential_decay_length_penalty",
  "forced_bos_token_id",
  "forced_eos_token_id",
  "length_penalty",
  "max_length",
  "min_length",
  "no_repeat_ngram_size",
  "num_beam_groups",
  "num_beams",
  "num_return_sequences",
  "output_scores",
  "remove_invalid_values",
  "repetition_penalty",
  "suppress_tokens",
  "temperature",
  "top_k",
  "top_p",
]);

export type ParseOptions = {
  /** For messages. */
  readonly file: string;
  /** Values of fields that the file leaves out. */
  readonly defaults: Readonly<Record<string, unknown>>;
  /** Fields that change the computation, with the only value that is implemented. */
  readonly fixed: Readonly<Record<string, unknown>>;
  /** The field that names the activation. */
  readonly activation: string;
  /** Fields of this type's older configurations that say nothing about the computation. */
  readonly harmless?: readonly string[];
};

/** Reads a config.json with a type's schema and defaults; the raw object comes back with them filled in. */
export function parseConfig<S extends z.ZodRawShape>(
  raw: Readonly<Record<string, unknown>>,
  schema: z.ZodObject<S>,
  { file, defaults, fixed, activation, harmless = [] }: ParseOptions,
): { config: z.infer<z.ZodObject<S>>; warnings: string[] } {
  const problems: string[] = [];
  for (const [key, only] of Object.entries(fixed)) {
    const value = raw[key] ?? only;
    if (value !== only)
      problems.push(
        `${key} ${JSON.stringify(value)} is not implemented${only === undefined ? "" : ` (only ${JSON.stringify(only)} is)`}`,
      );
  }
  const parsed = schema.safeParse({ ...defaults, ...raw });
  if (!parsed.success)
    problems.push(
      ...parsed.error.issues.map((issue) => `${issue.path.join(".") || "config"}: ${issue.message}`),
    );
  const named = raw[activation];
  if (typeof named === "string" && !activationNames.includes(named))
    problems.push(
      `${activation} "${named}" is not implemented; closest: ${nearest(named, activationNames).join(", ") || activationNames.join(", ")}`,
    );
  if (!parsed.success || problems.length > 0)
    throw new UnsupportedModelError(`${file}: ${problems.join("; ")}.`, {
      code: "unsupported-config",
      details: { file, problems },
    });
  const unknown = Object.keys(raw).filter(
    (key) =>
      !(key in schema.shape) &&
      !inert.has(key) &&
      !generationFields.has(key) &&
      !(key in fixed) &&
      !harmless.includes(key),
  );
  const warnings =
    unknown.length > 0
      ? [
          `${file}: fields that ${String(raw["model_type"])} does not have are ignored, as transformers ignores them: ${unknown.join(", ")}.`,
        ]
      : [];
  return { config: parsed.data, warnings };
}

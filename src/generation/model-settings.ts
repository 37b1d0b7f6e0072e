import { z } from "zod";
import { GraftError } from "../errors.ts";
import type { ModelOrigin } from "../models/index.ts";
import { count, earlyStopping, finite, number, oneOrMore, tokenId, tokenIds } from "./options.ts";

const maybe = <T extends z.ZodType>(type: T) => type.nullish();
const yesOrNo = () => z.boolean({ error: "must be true or false" });

/** The settings of generation_config.json that Graft heeds. */
const heeded = {
  max_new_tokens: maybe(count(1)),
  max_length: maybe(count(1)),
  min_new_tokens: maybe(count(0)),
  min_length: maybe(count(0)),
  do_sample: maybe(yesOrNo()),
  temperature: maybe(number("a finite number of at least 0", (n) => n >= 0 && n < Infinity)),
  top_k: maybe(count(0)),
  top_p: maybe(number("from 0 to 1", (n) => n >= 0 && n <= 1)),
  min_p: maybe(number("from 0 to 1", (n) => n >= 0 && n <= 1)),
  repetition_penalty: maybe(number("a finite number greater than 0", (n) => n > 0 && n < Infinity)),
  no_repeat_ngram_size: maybe(count(0)),
  num_beams: maybe(count(1)),
  length_penalty: maybe(finite()),
  early_stopping: maybe(earlyStopping()),
  num_return_sequences: maybe(count(1)),
  forced_bos_token_id: maybe(tokenId()),
  forced_eos_token_id: maybe(tokenIds()),
  stop_strings: maybe(oneOrMore<string>("a text or a list of texts", (text) => typeof text === "string")),
  bos_token_id: maybe(tokenIds()),
  eos_token_id: maybe(tokenIds()),
  pad_token_id: maybe(number("a token id", (n) => Number.isSafeInteger(n))),
  decoder_start_token_id: maybe(tokenId()),
};
const schema = z.looseObject(heeded);

export type ModelSettings = z.output<typeof schema>;

/** Settings of generation_config.json that change the output and that Graft lacks, with when they do. */
const unsupported: Record<string, (value: unknown) => boolean> = {
  num_beam_groups: (value) => Number(value) > 1,
  penalty_alpha: (value) => Number(value) > 0,
  dola_layers: () => true,
  max_time: () => true,
  encoder_repetition_penalty: (value) => value !== 1,
  encoder_no_repeat_ngram_size: (value) => Number(value) > 0,
  bad_words_ids: isFilled,
  force_words_ids: isFilled,
  constraints: isFilled,
  suppress_tokens: isFilled,
  begin_suppress_tokens: isFilled,
  sequence_bias: isFilled,
  exponential_decay_length_penalty: () => true,
  guidance_scale: (value) => value !== 1,
  watermarking_config: () => true,
  token_healing: (value) => value === true,
};

/** The same for settings that matter only when tokens are drawn. */
const unsupportedSampling: Record<string, (value: unknown) => boolean> = {
  typical_p: (value) => value !== 1,
  epsilon_cutoff: (value) => value !== 0,
  eta_cutoff: (value) => value !== 0,
  top_h: () => true,
};

function isFilled(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length > 0;
}

/** Whether transformers has a setting of this name that Graft lacks. */
export const isUnsupported = (name: string): boolean => name in unsupported || name in unsupportedSampling;

/** Names of settings that would change the text if Graft had them. */
export function ignoredSettings(file: ModelSettings, { doSample }: { doSample: boolean }): string[] {
  return Object.entries({ ...unsupported, ...(doSample && unsupportedSampling) })
    .filter(([key, changes]) => file[key] !== undefined && file[key] !== null && changes(file[key]))
    .map(([key]) => key);
}

/** Where a config.json may have settings that it does not have itself. */
const nested = ["decoder", "generator", "text_config"];

/**
 * A model's own settings of generation: generation_config.json, or where there is none, what config.json has of them, as
 * in older checkpoints.
 * Source: transformers `adjust_generation_fn`, `GenerationConfig.from_model_config`.
 */
export function settingsFile({ name, config, generationConfig }: ModelOrigin): {
  file: Readonly<Record<string, unknown>>;
  name: string;
} {
  if (generationConfig) return { file: generationConfig, name: `${name}/generation_config.json` };
  const known = [...Object.keys(heeded), ...Object.keys(unsupported), ...Object.keys(unsupportedSampling)];
  const inner = nested.map((key) => config[key]).find((value) => typeof value === "object" && value !== null);
  const sources = [config, (inner ?? {}) as Readonly<Record<string, unknown>>];
  const found = known.flatMap((key) => {
    const value = sources.map((source) => source[key]).find((value) => value !== undefined && value !== null);
    return value === undefined ? [] : [[key, value] as const];
  });
  return { file: Object.fromEntries(found), name: `${name}/config.json` };
}

/** @throws GraftError with every setting that is wrong */
export function readModelSettings(value: unknown, name: string): ModelSettings {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) =>
    path.length === 0
      ? "it is not a JSON object"
      : `${path.join(".")} ${message}, got ${JSON.stringify((value as Record<string, unknown>)[String(path[0])])}`,
  );
  throw new GraftError(`${name}: ${problems.join("; ")}. Correct the file, or remove it to use defaults.`, {
    code: "invalid-generation-config",
    details: { file: name, problems },
  });
}

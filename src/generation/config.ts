import { z } from "zod";
import { GraftError, nearest } from "../errors.ts";
import {
  type LogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  MinPLogitsWarper,
  NoRepeatNGramLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  TemperatureLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
} from "./logits-processors.ts";

const number = (expectation: string, accepts: (value: number) => boolean) =>
  z.custom<number>((value) => typeof value === "number" && accepts(value), {
    error: `must be ${expectation}`,
  });
const count = (minimum: number) =>
  number(`a whole number of at least ${minimum}`, (n) => Number.isSafeInteger(n) && n >= minimum);

const oneOrMore = <T>(expectation: string, accepts: (value: unknown) => boolean) =>
  z.custom<T | T[]>((value) => (Array.isArray(value) ? value.every(accepts) : accepts(value)), {
    error: `must be ${expectation}`,
  });
const tokenIds = () =>
  oneOrMore<number>(
    "a token id or a list of token ids",
    (id) => Number.isSafeInteger(id) && (id as number) >= 0,
  );

/**
 * Options of text generation, named as in transformers' GenerationConfig, in camelCase; `stop` stands for
 * `stop_strings`. What is left out comes from the model's generation_config.json, then from the default.
 * Each description is also the help text.
 */
export const generationOptionsSchema = z.strictObject({
  maxNewTokens: count(1).optional().describe("Tokens to generate at most. Default: 256."),
  minNewTokens: count(0).optional().describe("Tokens to generate before the text may end. Default: 0."),
  doSample: z
    .boolean({ error: "must be true or false" })
    .optional()
    .describe("Draw tokens at random (true) or always take the most probable one (false)."),
  temperature: number("a finite number of at least 0", (n) => n >= 0 && n < Infinity)
    .optional()
    .describe("How random draws are: below 1 less, above 1 more, 0 not at all. Default: 1."),
  topK: count(0)
    .optional()
    .describe("Draw from this many of the most probable tokens; 0 for all. Default: 50."),
  topP: number("greater than 0 and at most 1", (n) => n > 0 && n <= 1)
    .optional()
    .describe("Draw from the most probable tokens that sum to this probability. Default: 1."),
  minP: number("from 0 to 1", (n) => n >= 0 && n <= 1)
    .optional()
    .describe("Draw from tokens at least this many times as probable as the most probable one. Default: 0."),
  repetitionPenalty: number("a finite number greater than 0", (n) => n > 0 && n < Infinity)
    .optional()
    .describe("Above 1 makes tokens that have occurred less likely. Default: 1."),
  noRepeatNgramSize: count(0)
    .optional()
    .describe("Never repeat this many tokens in a row; 0 allows it. Default: 0."),
  seed: number("a whole number from 0 to 2³² − 1", (n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32)
    .optional()
    .describe("Seed of random draws. Default: another one each time."),
  stop: oneOrMore<string>(
    "a text or a list of texts, none empty",
    (text) => typeof text === "string" && text !== "",
  )
    .optional()
    .describe("Texts at which generation stops; they are not part of the output."),
  eosTokenIds: tokenIds().optional().describe("Tokens that end the text. Default: the model's."),
});

/** Options as given: everything may be left out. */
export type GenerationOptions = z.input<typeof generationOptionsSchema>;

/** Options with every default filled in. */
export type GenerationConfig = {
  /** Limit of generated tokens; undefined if the model's file limits the whole length instead. */
  maxNewTokens?: number;
  /** Limit of prompt and generated tokens together, used without `maxNewTokens`. */
  maxLength?: number;
  minNewTokens: number;
  /** Whether tokens are drawn; if not, the four settings after it are neutral. */
  doSample: boolean;
  /** 0 if and only if tokens are not drawn. */
  temperature: number;
  /** 0 for all tokens. */
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  noRepeatNgramSize: number;
  seed?: number;
  stop: string[];
  eosTokenIds: number[];
  padTokenId?: number;
};

export type GenerationWarning = {
  code: "unsupported-generation-setting" | "sampling-options-unused";
  message: string;
  details: Record<string, unknown>;
};

const maybe = <T extends z.ZodType>(type: T) => type.nullish();

/** The settings of generation_config.json that Graft heeds. */
const modelFile = z.looseObject({
  max_new_tokens: maybe(count(1)),
  max_length: maybe(count(1)),
  min_new_tokens: maybe(count(0)),
  do_sample: maybe(z.boolean({ error: "must be true or false" })),
  temperature: maybe(number("a finite number of at least 0", (n) => n >= 0 && n < Infinity)),
  top_k: maybe(count(0)),
  top_p: maybe(number("from 0 to 1", (n) => n >= 0 && n <= 1)),
  min_p: maybe(number("from 0 to 1", (n) => n >= 0 && n <= 1)),
  repetition_penalty: maybe(number("a finite number greater than 0", (n) => n > 0 && n < Infinity)),
  no_repeat_ngram_size: maybe(count(0)),
  stop_strings: maybe(oneOrMore<string>("a text or a list of texts", (text) => typeof text === "string")),
  eos_token_id: maybe(tokenIds()),
  pad_token_id: maybe(number("a token id", (n) => Number.isSafeInteger(n))),
});

/** Settings of generation_config.json that change the output and that Graft lacks, with when they do. */
const unsupported: Record<string, (value: unknown) => boolean> = {
  num_beams: (value) => Number(value) > 1,
  num_beam_groups: (value) => Number(value) > 1,
  num_return_sequences: (value) => Number(value) > 1,
  penalty_alpha: (value) => Number(value) > 0,
  dola_layers: () => true,
  min_length: (value) => Number(value) > 0,
  max_time: () => true,
  encoder_repetition_penalty: (value) => value !== 1,
  encoder_no_repeat_ngram_size: (value) => Number(value) > 0,
  bad_words_ids: isFilled,
  force_words_ids: isFilled,
  constraints: isFilled,
  suppress_tokens: isFilled,
  begin_suppress_tokens: isFilled,
  sequence_bias: isFilled,
  forced_bos_token_id: () => true,
  forced_eos_token_id: () => true,
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

/**
 * Merges options, the model's generation_config.json and defaults (transformers' own, but 256 for the number of
 * new tokens where it has a total length of 20).
 *
 * Tokens are drawn if `doSample` says so; else if `temperature` is given, when it is above 0; else if `topK`,
 * `topP` or `minP` is given; else if the model's file has `do_sample`. Temperature, top-k and the like of the
 * file apply whenever tokens are drawn.
 *
 * @param model.file parsed generation_config.json, if there is one.
 * @param model.name its name, for messages.
 * @param model.eosTokenIds those of the model's config.json, used if neither options nor file have any.
 * @returns the configuration, and warnings about settings of the file that Graft does not support but which
 * would change the text, and about options that have no effect.
 * @throws GraftError with every option, or every setting of the file, that is wrong.
 */
export function resolveGenerationConfig(
  options: GenerationOptions,
  model: { file?: unknown; name?: string; eosTokenIds?: readonly number[] | undefined } = {},
): { config: GenerationConfig; warnings: GenerationWarning[] } {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const parsed = generationOptionsSchema.safeParse(given);
  const problems = parsed.success ? [] : parsed.error.issues.flatMap((issue) => describe(issue, given));
  if (given["doSample"] === true && given["temperature"] === 0)
    problems.push("doSample true contradicts temperature 0, which draws nothing; leave one of them out");
  if (!parsed.success || problems.length > 0)
    throw new GraftError(`Generation options: ${problems.join("; ")}.`, {
      code: "invalid-generation-config",
      details: { problems },
    });
  const input = parsed.data;
  const name = model.name ?? "generation_config.json";
  const file = readModelFile(model.file ?? {}, name);

  const restrictions = (["topK", "topP", "minP"] as const).filter((option) => input[option] !== undefined);
  const doSample =
    input.doSample ??
    (input.temperature !== undefined
      ? input.temperature > 0
      : restrictions.length > 0 || (file.do_sample === true && file.temperature !== 0));

  const warnings: GenerationWarning[] = [];
  const unused: string[] = doSample ? [] : [...restrictions];
  if (!doSample && input.temperature !== undefined && input.temperature > 0) unused.push("temperature");
  if (unused.length > 0)
    warnings.push({
      code: "sampling-options-unused",
      message: `${unused.join(", ")} ${unused.length === 1 ? "has" : "have"} no effect, because the most probable token is always taken. Set a temperature above 0 and leave out doSample false to draw tokens.`,
      details: { options: unused },
    });
  const ignored = Object.entries({ ...unsupported, ...(doSample && unsupportedSampling) })
    .filter(([key, changes]) => file[key] !== undefined && file[key] !== null && changes(file[key]))
    .map(([key]) => key);
  if (ignored.length > 0)
    warnings.push({
      code: "unsupported-generation-setting",
      message: `${name} sets ${ignored.map((key) => `${key} ${JSON.stringify(file[key])}`).join(", ")}, which Graft does not support: transformers would generate other text.`,
      details: { file: name, settings: Object.fromEntries(ignored.map((key) => [key, file[key]])) },
    });

  const maxNewTokens = input.maxNewTokens ?? file.max_new_tokens ?? undefined;
  const maxLength = maxNewTokens === undefined ? (file.max_length ?? undefined) : undefined;
  const eos = input.eosTokenIds ?? file.eos_token_id ?? model.eosTokenIds ?? [];
  const stop = input.stop ?? file.stop_strings ?? [];
  const config: GenerationConfig = {
    ...(maxLength === undefined ? { maxNewTokens: maxNewTokens ?? 256 } : { maxLength }),
    minNewTokens: input.minNewTokens ?? file.min_new_tokens ?? 0,
    doSample,
    temperature: doSample ? (input.temperature ?? (file.temperature || 1)) : 0,
    topK: doSample ? (input.topK ?? file.top_k ?? 50) : 0,
    topP: doSample ? (input.topP ?? file.top_p ?? 1) : 1,
    minP: doSample ? (input.minP ?? file.min_p ?? 0) : 0,
    repetitionPenalty: input.repetitionPenalty ?? file.repetition_penalty ?? 1,
    noRepeatNgramSize: input.noRepeatNgramSize ?? file.no_repeat_ngram_size ?? 0,
    ...(input.seed !== undefined && { seed: input.seed }),
    stop: [stop].flat().filter((text) => text.length > 0),
    eosTokenIds: typeof eos === "number" ? [eos] : [...eos],
    ...(typeof file.pad_token_id === "number" && file.pad_token_id >= 0 && { padTokenId: file.pad_token_id }),
  };
  return { config, warnings };
}

/**
 * How many tokens to generate at most after a prompt of `promptLength` tokens.
 * @throws GraftError if the model's `max_length` leaves no room.
 */
export function newTokenLimit({ maxNewTokens, maxLength }: GenerationConfig, promptLength: number): number {
  if (maxNewTokens !== undefined) return maxNewTokens;
  const left = maxLength! - promptLength;
  if (left < 1)
    throw new GraftError(
      `The prompt has ${promptLength} tokens, and the model's generation_config.json limits prompt and output ` +
        `together to ${maxLength} (max_length). Set maxNewTokens, or shorten the prompt.`,
      { code: "prompt-too-long", details: { promptLength, maxLength } },
    );
  return left;
}

/** The processors that a configuration asks for, in transformers' order. Source: `_get_logits_processor`. */
export function createLogitsProcessors(
  config: GenerationConfig,
  { promptLength }: { promptLength: number },
): LogitsProcessor[] {
  const processors: LogitsProcessor[] = [];
  if (config.repetitionPenalty !== 1)
    processors.push(new RepetitionPenaltyLogitsProcessor(config.repetitionPenalty));
  if (config.noRepeatNgramSize > 0)
    processors.push(new NoRepeatNGramLogitsProcessor(config.noRepeatNgramSize));
  if (config.minNewTokens > 0 && config.eosTokenIds.length > 0)
    processors.push(
      new MinNewTokensLengthLogitsProcessor(promptLength, config.minNewTokens, config.eosTokenIds),
    );
  if (!config.doSample) return processors;
  if (config.temperature !== 1) processors.push(new TemperatureLogitsWarper(config.temperature));
  if (config.topK > 0) processors.push(new TopKLogitsWarper(config.topK));
  if (config.topP < 1) processors.push(new TopPLogitsWarper(config.topP));
  if (config.minP > 0) processors.push(new MinPLogitsWarper(config.minP));
  return processors;
}

function readModelFile(value: unknown, name: string): z.output<typeof modelFile> {
  const parsed = modelFile.safeParse(value);
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

/** Names that other tools use for an option. */
const otherNames: Record<string, string> = {
  maxTokens: "maxNewTokens",
  maxLength: "maxNewTokens",
  minTokens: "minNewTokens",
  eosTokenId: "eosTokenIds",
  stopStrings: "stop",
  stopSequences: "stop",
  randomSeed: "seed",
};

function describe(issue: z.core.$ZodIssue, given: Record<string, unknown>): string[] {
  if (issue.code !== "unrecognized_keys") {
    const name = String(issue.path[0]);
    return [`${name} ${issue.message}, got ${JSON.stringify(given[name])}`];
  }
  const known = Object.keys(generationOptionsSchema.shape);
  return issue.keys.map((key) => {
    const camel = key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
    const snake = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (snake in unsupported || snake in unsupportedSampling) return `${key} is not supported`;
    const instead = otherNames[camel] ?? (known.includes(camel) ? camel : nearest(camel, known)[0]);
    return `there is no option ${key}${instead ? `; use ${instead}` : ""}`;
  });
}

import type { z } from "zod";
import { GraftError, nearest } from "../errors.ts";
import {
  ForcedBOSTokenLogitsProcessor,
  ForcedEOSTokenLogitsProcessor,
  type LogitsProcessor,
  MinLengthLogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  MinPLogitsWarper,
  NoRepeatNGramLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  TemperatureLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
} from "./logits-processors.ts";
import { ignoredSettings, isUnsupported, readModelSettings } from "./model-settings.ts";
import { type EarlyStopping, type GenerationOptions, generationOptionsSchema } from "./options.ts";

/** Options with every default filled in. */
export type GenerationConfig = {
  /** Limit of generated tokens; undefined if the model's file limits the whole length instead. */
  maxNewTokens?: number;
  /** Limit of what a text begins with and generated tokens together, used without `maxNewTokens`. */
  maxLength?: number;
  minNewTokens: number;
  /** As `minNewTokens`, with what a text begins with counted in; 0 where `minNewTokens` is given. */
  minLength: number;
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
  /** 1 for no beam search. */
  numBeams: number;
  lengthPenalty: number;
  earlyStopping: EarlyStopping;
  numReturnSequences: number;
  forcedBosTokenId?: number;
  /** Empty for none. */
  forcedEosTokenIds: number[];
  seed?: number;
  stop: string[];
  eosTokenIds: number[];
  padTokenId?: number;
  /** What an encoder–decoder's text begins with, where the model's file says so. */
  decoderStartTokenId?: number;
};

export type GenerationWarning = {
  code: "unsupported-generation-setting" | "sampling-options-unused" | "beam-options-unused";
  message: string;
  details: Record<string, unknown>;
};

/**
 * Merges options, the model's generation_config.json and defaults (transformers' own, but 256 for the number of
 * new tokens where it has a total length of 20).
 *
 * Tokens are drawn if `doSample` says so; else if `temperature` is given, when it is above 0; else if `topK`,
 * `topP` or `minP` is given; else if the model's file has `do_sample`. Temperature, top-k and the like of the
 * file apply whenever tokens are drawn. With several beams, drawing chooses which of them go on.
 *
 * @param model.file parsed generation_config.json, if there is one; see `settingsFile`.
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
  const input = checkGenerationOptions(options);
  const name = model.name ?? "generation_config.json";
  const file = readModelSettings(model.file ?? {}, name);

  const doSample = isSampling(input, file);
  const numBeams = input.numBeams ?? file.num_beams ?? 1;
  const numReturnSequences = input.numReturnSequences ?? file.num_return_sequences ?? 1;
  const several = severalProblem({ numBeams, numReturnSequences, doSample });
  if (several !== undefined) throw wrongOptions([several]);

  const maxNewTokens = input.maxNewTokens ?? file.max_new_tokens ?? undefined;
  const maxLength = maxNewTokens === undefined ? (file.max_length ?? undefined) : undefined;
  const minNewTokens = input.minNewTokens ?? file.min_new_tokens ?? undefined;
  const eos = input.eosTokenIds ?? file.eos_token_id ?? model.eosTokenIds ?? [];
  const stop = input.stop ?? file.stop_strings ?? [];
  const forcedBos = input.forcedBosTokenId ?? file.forced_bos_token_id ?? undefined;
  const start = file.decoder_start_token_id ?? [file.bos_token_id ?? []].flat()[0];
  const config: GenerationConfig = {
    ...(maxLength === undefined ? { maxNewTokens: maxNewTokens ?? 256 } : { maxLength }),
    minNewTokens: minNewTokens ?? 0,
    minLength: minNewTokens === undefined ? (file.min_length ?? 0) : 0,
    doSample,
    temperature: doSample ? (input.temperature ?? (file.temperature || 1)) : 0,
    topK: doSample ? (input.topK ?? file.top_k ?? 50) : 0,
    topP: doSample ? (input.topP ?? file.top_p ?? 1) : 1,
    minP: doSample ? (input.minP ?? file.min_p ?? 0) : 0,
    repetitionPenalty: input.repetitionPenalty ?? file.repetition_penalty ?? 1,
    noRepeatNgramSize: input.noRepeatNgramSize ?? file.no_repeat_ngram_size ?? 0,
    numBeams,
    lengthPenalty: input.lengthPenalty ?? file.length_penalty ?? 1,
    earlyStopping: input.earlyStopping ?? file.early_stopping ?? false,
    numReturnSequences,
    ...(forcedBos !== undefined && { forcedBosTokenId: forcedBos }),
    forcedEosTokenIds: [input.forcedEosTokenId ?? file.forced_eos_token_id ?? []].flat(),
    ...(input.seed !== undefined && { seed: input.seed }),
    stop: [stop].flat().filter((text) => text.length > 0),
    eosTokenIds: typeof eos === "number" ? [eos] : [...eos],
    ...(typeof file.pad_token_id === "number" && file.pad_token_id >= 0 && { padTokenId: file.pad_token_id }),
    ...(start !== undefined && { decoderStartTokenId: start }),
  };

  const warnings = unusedOptions(input, { doSample, numBeams });
  const ignored = ignoredSettings(file, { doSample });
  if (ignored.length > 0)
    warnings.push({
      code: "unsupported-generation-setting",
      message: `${name} sets ${ignored.map((key) => `${key} ${JSON.stringify(file[key])}`).join(", ")}, which Graft does not support: transformers would generate other text.`,
      details: { file: name, settings: Object.fromEntries(ignored.map((key) => [key, file[key]])) },
    });
  return { config, warnings };
}

/** The options that are given. @throws GraftError with every one that is wrong, whatever the model */
export function checkGenerationOptions(options: GenerationOptions): GenerationOptions {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const parsed = generationOptionsSchema.safeParse(given);
  const problems = parsed.success ? [] : parsed.error.issues.flatMap((issue) => describe(issue, given));
  if (given["doSample"] === true && given["temperature"] === 0)
    problems.push("doSample true contradicts temperature 0, which draws nothing; leave one of them out");
  if (!parsed.success || problems.length > 0) throw wrongOptions(problems);
  return parsed.data;
}

const wrongOptions = (problems: readonly string[]): GraftError =>
  new GraftError(`Generation options: ${problems.join("; ")}.`, {
    code: "invalid-generation-config",
    details: { problems },
  });

const restricting = ["topK", "topP", "minP"] as const;

function isSampling(
  input: GenerationOptions,
  file: { do_sample?: boolean | null | undefined; temperature?: number | null | undefined },
): boolean {
  if (input.doSample !== undefined) return input.doSample;
  if (input.temperature !== undefined) return input.temperature > 0;
  if (restricting.some((option) => input[option] !== undefined)) return true;
  return file.do_sample === true && file.temperature !== 0;
}

/** Why a prompt cannot have so many texts. */
function severalProblem({
  numBeams,
  numReturnSequences,
  doSample,
}: Pick<GenerationConfig, "numBeams" | "numReturnSequences" | "doSample">): string | undefined {
  if (numReturnSequences === 1) return undefined;
  if (numBeams > 1)
    return numReturnSequences > numBeams
      ? `numReturnSequences ${numReturnSequences} is more than numBeams ${numBeams}; raise numBeams`
      : undefined;
  return doSample
    ? undefined
    : `numReturnSequences ${numReturnSequences} needs beams or random draws, for the most probable text is one; set numBeams, or a temperature`;
}

/** Options that have no effect. */
function unusedOptions(
  input: GenerationOptions,
  { doSample, numBeams }: { doSample: boolean; numBeams: number },
): GenerationWarning[] {
  const list = (options: readonly string[]): string =>
    `${options.join(", ")} ${options.length === 1 ? "has" : "have"} no effect`;
  const warnings: GenerationWarning[] = [];
  const sampling: string[] = doSample ? [] : restricting.filter((option) => input[option] !== undefined);
  if (!doSample && input.temperature !== undefined && input.temperature > 0) sampling.push("temperature");
  if (sampling.length > 0)
    warnings.push({
      code: "sampling-options-unused",
      message: `${list(sampling)}, because the most probable token is always taken. Set a temperature above 0 and leave out doSample false to draw tokens.`,
      details: { options: sampling },
    });
  const beams = (["lengthPenalty", "earlyStopping"] as const).filter(
    (option) => numBeams === 1 && input[option] !== undefined,
  );
  if (beams.length > 0)
    warnings.push({
      code: "beam-options-unused",
      message: `${list(beams)} without beam search. Set numBeams above 1.`,
      details: { options: beams },
    });
  return warnings;
}

/**
 * How many tokens to generate at most after a beginning of `promptLength` tokens: a causal model's prompt, an
 * encoder–decoder's start token.
 * @param longest most that the model can generate.
 * @throws GraftError if the model's `max_length` leaves no room.
 */
export function newTokenLimit(
  { maxNewTokens, maxLength }: Pick<GenerationConfig, "maxNewTokens" | "maxLength">,
  promptLength: number,
  longest = Infinity,
): number {
  if (maxNewTokens !== undefined) return Math.min(maxNewTokens, longest);
  const left = maxLength! - promptLength;
  if (left < 1)
    throw new GraftError(
      `The prompt has ${promptLength} tokens, and the model's generation_config.json limits prompt and output ` +
        `together to ${maxLength} (max_length). Set maxNewTokens, or shorten the prompt.`,
      { code: "prompt-too-long", details: { promptLength, maxLength } },
    );
  return Math.min(left, longest);
}

/**
 * The processors that a configuration asks for, in transformers' order. Source: `_get_logits_processor`.
 * @param promptLength tokens that the text begins with.
 * @param limit most tokens to generate; a forced end needs it.
 */
export function createLogitsProcessors(
  config: GenerationConfig,
  { promptLength, limit = Infinity }: { promptLength: number; limit?: number },
): LogitsProcessor[] {
  const { eosTokenIds, numBeams } = config;
  const processors: LogitsProcessor[] = [];
  if (config.repetitionPenalty !== 1)
    processors.push(new RepetitionPenaltyLogitsProcessor(config.repetitionPenalty));
  if (config.noRepeatNgramSize > 0)
    processors.push(new NoRepeatNGramLogitsProcessor(config.noRepeatNgramSize));
  if (config.minLength > 0 && eosTokenIds.length > 0)
    processors.push(new MinLengthLogitsProcessor(config.minLength, eosTokenIds));
  if (config.minNewTokens > 0 && eosTokenIds.length > 0)
    processors.push(new MinNewTokensLengthLogitsProcessor(promptLength, config.minNewTokens, eosTokenIds));
  if (config.forcedBosTokenId !== undefined)
    processors.push(new ForcedBOSTokenLogitsProcessor(config.forcedBosTokenId));
  if (config.forcedEosTokenIds.length > 0)
    processors.push(new ForcedEOSTokenLogitsProcessor(promptLength + limit, config.forcedEosTokenIds));
  if (!config.doSample) return processors;
  // Of beams one at least has to go on.
  const keep = { minTokensToKeep: numBeams > 1 ? eosTokenIds.length + 1 : 1 };
  if (config.temperature !== 1) processors.push(new TemperatureLogitsWarper(config.temperature));
  if (config.topK > 0) processors.push(new TopKLogitsWarper(config.topK, keep));
  if (config.topP < 1) processors.push(new TopPLogitsWarper(config.topP, keep));
  if (config.minP > 0) processors.push(new MinPLogitsWarper(config.minP, keep));
  return processors;
}

/** Names that other tools use for an option. */
const otherNames: Record<string, string> = {
  maxTokens: "maxNewTokens",
  maxLength: "maxNewTokens",
  minTokens: "minNewTokens",
  minLength: "minNewTokens",
  beams: "numBeams",
  beamSize: "numBeams",
  forcedEosTokenIds: "forcedEosTokenId",
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
    if (isUnsupported(snake)) return `${key} is not supported`;
    const instead = otherNames[camel] ?? (known.includes(camel) ? camel : nearest(camel, known)[0]);
    return `there is no option ${key}${instead ? `; use ${instead}` : ""}`;
  });
}

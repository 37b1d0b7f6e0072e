import { z } from "zod";

export const number = (expectation: string, accepts: (value: number) => boolean) =>
  z.custom<number>((value) => typeof value === "number" && accepts(value), {
    error: `must be ${expectation}`,
  });
export const finite = () => number("a finite number", Number.isFinite);
export const count = (minimum: number) =>
  number(`a whole number of at least ${minimum}`, (n) => Number.isSafeInteger(n) && n >= minimum);

export const oneOrMore = <T>(expectation: string, accepts: (value: unknown) => boolean) =>
  z.custom<T | T[]>((value) => (Array.isArray(value) ? value.every(accepts) : accepts(value)), {
    error: `must be ${expectation}`,
  });
const isTokenId = (id: unknown): boolean => Number.isSafeInteger(id) && (id as number) >= 0;
export const tokenId = () => number("a token id", isTokenId);
export const tokenIds = () => oneOrMore<number>("a token id or a list of token ids", isTokenId);

/** When beam search stops before every beam has come to its limit. */
export type EarlyStopping = boolean | "never";
export const earlyStopping = () =>
  z.custom<EarlyStopping>((value) => typeof value === "boolean" || value === "never", {
    error: 'must be true, false or "never"',
  });

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
  numBeams: count(1)
    .optional()
    .describe("Texts to follow at once, of which the most probable one wins (beam search). Default: 1."),
  lengthPenalty: finite()
    .optional()
    .describe(
      "In beam search: a text's log-probability is divided by its length to this power. Above 0 favours longer texts. Default: 1.",
    ),
  earlyStopping: earlyStopping()
    .optional()
    .describe(
      "In beam search: stop as soon as there are as many ended texts as beams (true), when a better one is unlikely (false), or only when none can come (never). Default: false.",
    ),
  numReturnSequences: count(1)
    .optional()
    .describe("Texts to return for a prompt: the best of beam search, or several draws. Default: 1."),
  forcedBosTokenId: tokenId().optional().describe("Token to begin the text of an encoder–decoder with."),
  forcedEosTokenId: tokenIds()
    .optional()
    .describe("Token to put last where a text comes to the limit of tokens."),
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

import { GraftError } from "../errors.ts";
import type { CachedDecoder } from "./cached-decoder.ts";
import { createLogitsProcessors, type GenerationConfig, newTokenLimit } from "./config.ts";
import { Sampler } from "./sampler.ts";
import { type StopReason, StopStringFilter, stopReason } from "./stopping.ts";
import { TextStreamer } from "./text-streamer.ts";

/** What one step adds to one text. */
export type GeneratedToken = {
  readonly token: number;
  /** Text that is complete now; often empty, and always without a decoder of tokens. */
  readonly text: string;
  /** Set with the last token. */
  readonly reason: StopReason | undefined;
};

export type GenerateOptions = {
  readonly config: GenerationConfig;
  /** Text of tokens; without it `text` stays empty, and there can be no stop strings. */
  readonly decode?: ((ids: number[]) => string) | undefined;
  /** Ends generation before the next token; what has been generated stays. */
  readonly signal?: AbortSignal | undefined;
};

/**
 * Continues a prompt, token by token.
 * @throws GraftError if the prompt is empty or holds tokens that the model does not have, or if there are stop strings and
 * no `decode`; the signal's reason if aborted.
 */
export async function* generate(
  decoder: CachedDecoder,
  prompt: readonly number[],
  { config, decode, signal }: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  checkPrompt(decoder, prompt);
  const limit = newTokenLimit(config, prompt.length);
  const text = new Continuation(prompt, { config, decode, limit, seed: config.seed });
  const run = decoder.start([prompt], [prompt.map(() => 1)]);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const generated = text.next((await run.scores())[0]!);
      yield generated;
      if (generated.reason !== undefined) return;
      run.push([generated.token]);
    }
  } finally {
    run.release();
  }
}

/**
 * Continues several prompts at once; shorter ones are padded on the left. Returns the new tokens of each, the one that
 * ended it included.
 * @throws as `generate`.
 */
export async function generateBatch(
  decoder: CachedDecoder,
  prompts: readonly (readonly number[])[],
  { config, decode, signal }: GenerateOptions,
): Promise<number[][]> {
  for (const prompt of prompts) checkPrompt(decoder, prompt);
  if (prompts.length === 0) return [];
  const width = Math.max(...prompts.map((prompt) => prompt.length));
  const padToken = config.padTokenId ?? config.eosTokenIds[0] ?? 0;
  const padding = prompts.map((prompt) => width - prompt.length);
  const padded = prompts.map((prompt, i) => [...Array<number>(padding[i]!).fill(padToken), ...prompt]);
  const mask = padded.map((row, i) => row.map((_, column) => (column < padding[i]! ? 0 : 1)));
  const limit = newTokenLimit(config, width);
  const texts = prompts.map((prompt, i) => {
    const seed = config.seed === undefined ? undefined : (config.seed + i) % 2 ** 32;
    return new Continuation(prompt, { config, decode, limit, seed });
  });
  const run = decoder.start(padded, mask);
  try {
    while (texts.some(({ done }) => !done)) {
      signal?.throwIfAborted();
      const scores = await run.scores();
      run.push(scores.map((row, i) => (texts[i]!.done ? padToken : texts[i]!.next(row).token)));
    }
  } finally {
    run.release();
  }
  return texts.map(({ tokens }) => tokens);
}

/** One text as it grows: chooses its tokens and knows when it ends. */
class Continuation {
  private readonly config: GenerationConfig;
  private readonly prompt: readonly number[];
  private readonly limit: number;
  private readonly sampler: Sampler;
  private readonly streamer: TextStreamer | undefined;
  private readonly stops: StopStringFilter;
  /** What has been generated. */
  readonly tokens: number[] = [];
  done = false;

  constructor(
    prompt: readonly number[],
    {
      config,
      decode,
      limit,
      seed,
    }: Omit<GenerateOptions, "signal"> & { limit: number; seed: number | undefined },
  ) {
    if (config.stop.length > 0 && !decode)
      throw new GraftError(
        `Stopping at a text (${config.stop.map((stop) => JSON.stringify(stop)).join(", ")}) needs a tokenizer. Pass one, or leave stop out.`,
        { code: "no-tokenizer", details: { stop: config.stop } },
      );
    this.prompt = prompt;
    this.config = config;
    this.limit = limit;
    this.sampler = new Sampler({
      processors: createLogitsProcessors(config, { promptLength: prompt.length }),
      sample: config.doSample,
      seed,
    });
    this.streamer = decode && new TextStreamer(decode);
    this.stops = new StopStringFilter(config.stop);
  }

  /** Takes the scores of the next token, and chooses it. */
  next(scores: Float32Array): GeneratedToken {
    const { stops, streamer } = this;
    const token = this.sampler.next([...this.prompt, ...this.tokens], scores);
    const count = this.tokens.push(token);
    const { eosTokenIds } = this.config;
    let reason: StopReason | undefined = stopReason(token, count, { eosTokenIds, maxNewTokens: this.limit });
    let text = stops.push(streamer?.push(token) ?? "");
    if (reason !== undefined && stops.stopped === undefined) text += stops.push(streamer?.end() ?? "");
    if (stops.stopped !== undefined) reason = "stop";
    else if (reason !== undefined) text += stops.end();
    this.done = reason !== undefined;
    return { token, text, reason };
  }
}

function checkPrompt({ model }: CachedDecoder, prompt: readonly number[]): void {
  if (prompt.length === 0)
    throw new GraftError("The prompt has no tokens. Give at least one; the model's BOS token will do.", {
      code: "empty-prompt",
    });
  const at = prompt.findIndex((token) => !model.hasToken(token));
  if (at >= 0)
    throw new GraftError(
      `Token ${prompt[at]} at place ${at} of the prompt is not in the vocabulary of ${model.vocabSize}. Does the tokenizer belong to the model?`,
      {
        code: "token-out-of-vocabulary",
        details: { token: prompt[at], place: at, vocabSize: model.vocabSize },
      },
    );
}

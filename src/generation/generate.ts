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
  /** Text of tokens; needed for `text` and for stop strings. */
  readonly decode?: ((ids: number[]) => string) | undefined;
  /** Ends generation before the next token; what has been generated stays. */
  readonly signal?: AbortSignal | undefined;
};

/**
 * Continues a prompt, token by token.
 * @throws GraftError if the prompt is empty, longer than the model's positions, or holds tokens it does not have.
 */
export async function* generate(
  decoder: CachedDecoder,
  prompt: readonly number[],
  { config, decode, signal }: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  checkPrompt(decoder, prompt);
  const limit = newTokenLimit(config, prompt.length);
  const sampler = new Sampler({
    processors: createLogitsProcessors(config, { promptLength: prompt.length }),
    sample: config.doSample,
    seed: config.seed,
  });
  const streamer = decode && new TextStreamer(decode);
  const stops = new StopStringFilter(config.stop);
  const ids = [...prompt];
  const run = decoder.start([prompt], [prompt.map(() => 1)]);
  try {
    for (let count = 1; ; count++) {
      signal?.throwIfAborted();
      const token = sampler.next(ids, (await run.scores())[0]!);
      ids.push(token);
      let reason: StopReason | undefined = stopReason(token, count, {
        eosTokenIds: config.eosTokenIds,
        maxNewTokens: limit,
      });
      let text = stops.push(streamer?.push(token) ?? "");
      if (reason !== undefined && stops.stopped === undefined) text += stops.push(streamer?.end() ?? "");
      if (stops.stopped !== undefined) reason = "stop";
      else if (reason !== undefined) text += stops.end();
      yield { token, text, reason };
      if (reason !== undefined) return;
      run.push([token]);
    }
  } finally {
    run.release();
  }
}

/**
 * Continues several prompts at once; shorter ones are padded on the left. Returns the new tokens of each, the one that
 * ended it included. Stop strings are not looked for.
 */
export async function generateBatch(
  decoder: CachedDecoder,
  prompts: readonly (readonly number[])[],
  { config, signal }: Omit<GenerateOptions, "decode">,
): Promise<number[][]> {
  for (const prompt of prompts) checkPrompt(decoder, prompt);
  const width = Math.max(...prompts.map((prompt) => prompt.length));
  const padToken = config.padTokenId ?? config.eosTokenIds[0] ?? 0;
  const padding = prompts.map((prompt) => width - prompt.length);
  const padded = prompts.map((prompt, i) => [...Array<number>(padding[i]!).fill(padToken), ...prompt]);
  const mask = padded.map((row, i) => row.map((_, column) => (column < padding[i]! ? 0 : 1)));
  const limit = newTokenLimit(config, width);
  const samplers = prompts.map(
    (prompt, i) =>
      new Sampler({
        processors: createLogitsProcessors(config, { promptLength: prompt.length }),
        sample: config.doSample,
        seed: config.seed === undefined ? undefined : (config.seed + i) % 2 ** 32,
      }),
  );
  const generated: number[][] = prompts.map(() => []);
  const done = prompts.map(() => false);
  const run = decoder.start(padded, mask);
  try {
    while (!done.every(Boolean)) {
      signal?.throwIfAborted();
      const scores = await run.scores();
      const tokens = scores.map((row, i) => {
        if (done[i]) return padToken;
        const token = samplers[i]!.next([...prompts[i]!, ...generated[i]!], row);
        generated[i]!.push(token);
        done[i] =
          stopReason(token, generated[i]!.length, {
            eosTokenIds: config.eosTokenIds,
            maxNewTokens: limit,
          }) !== undefined;
        return token;
      });
      run.push(tokens);
    }
  } finally {
    run.release();
  }
  return generated;
}

function checkPrompt({ model }: CachedDecoder, prompt: readonly number[]): void {
  if (prompt.length === 0)
    throw new GraftError("The prompt has no tokens. Give at least one; the model's BOS token will do.", {
      code: "empty-prompt",
    });
  const at = prompt.findIndex((token) => !(Number.isInteger(token) && token >= 0 && token < model.vocabSize));
  if (at >= 0)
    throw new GraftError(
      `Token ${prompt[at]} at place ${at} of the prompt is not in the vocabulary of ${model.vocabSize}. Does the tokenizer belong to the model?`,
      {
        code: "token-out-of-vocabulary",
        details: { token: prompt[at], place: at, vocabSize: model.vocabSize },
      },
    );
}

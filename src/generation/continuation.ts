import { createLogitsProcessors, type GenerationConfig } from "./config.ts";
import type { GeneratedText, Growth, Step } from "./growth.ts";
import { Sampler } from "./sampler.ts";
import { Spelling } from "./spelling.ts";
import { type StopReason, stopReason } from "./stopping.ts";

/** What one step adds to a text. */
export type GeneratedToken = {
  readonly token: number;
  /** Text that is complete now; often empty, and always without a decoder of tokens. */
  readonly text: string;
  /** Set with the last token. */
  readonly reason: StopReason | undefined;
};

export type GrowthOptions = {
  readonly config: GenerationConfig;
  /** The tokens that the text begins with; they are not part of it. */
  readonly begun: readonly number[];
  /** Most tokens to generate. */
  readonly limit: number;
  readonly decode: ((ids: number[]) => string) | undefined;
  readonly seed: number | undefined;
};

/** One text, token by token: the most probable one each time, or one that is drawn. */
export class Continuation implements Growth {
  private readonly options: GrowthOptions;
  private readonly sampler: Sampler;
  private readonly spelling: Spelling;
  private readonly tokens: number[] = [];
  private text = "";
  /** What the last step added. */
  last: GeneratedToken | undefined;

  /** @throws GraftError if there are stop strings and no `decode` */
  constructor(options: GrowthOptions) {
    const { config, begun, limit, decode, seed } = options;
    this.options = options;
    this.spelling = new Spelling({ decode, stop: config.stop });
    this.sampler = new Sampler({
      processors: createLogitsProcessors(config, { promptLength: begun.length, limit }),
      sample: config.doSample,
      seed,
    });
  }

  get done(): boolean {
    return this.last?.reason !== undefined;
  }

  /** The text so far, and why it ended. */
  get result(): GeneratedText {
    return { tokens: this.tokens, text: this.text, reason: this.last?.reason ?? "length" };
  }

  /** Whether it only ever takes the most probable token: then `take` does in place of `advance`. */
  get isGreedy(): boolean {
    return this.sampler.isArgmax;
  }

  advance([scores]: readonly Float32Array[]): Step {
    return this.take(this.sampler.next([...this.options.begun, ...this.tokens], scores!.slice()));
  }

  /** Goes on with a token. */
  take(token: number): Step {
    const { spelling } = this;
    const { config, limit } = this.options;
    const count = this.tokens.push(token);
    const { eosTokenIds } = config;
    const reason = stopReason(token, count, { eosTokenIds, maxNewTokens: limit });
    const text = spelling.push(token, { isLast: reason !== undefined });
    this.text += text;
    this.last = { token, text, reason: spelling.isStopped ? "stop" : reason };
    return { tokens: [token], rows: [0] };
  }
}

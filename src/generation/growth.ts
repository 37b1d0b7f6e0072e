import type { StopReason } from "./stopping.ts";

/** What a prompt's text has become. */
export type GeneratedText = {
  readonly tokens: readonly number[];
  /** Without stop strings and what follows; empty without a decoder of tokens. */
  readonly text: string;
  readonly reason: StopReason;
  /** In beam search the logarithm of its probability, divided by its length to the power of the length penalty. */
  readonly score?: number;
};

/** The texts that go on in the next step: text i is `tokens`[i] after what row `rows`[i] of the last step was. */
export type Step = { readonly tokens: readonly number[]; readonly rows: readonly number[] };

/** A prompt's text, or several rivals for it, as they grow in the rows of a batch. It begins in one row. */
export interface Growth {
  readonly done: boolean;
  /** Takes the scores of the next token, a row for each text that goes on. They stay as they are. */
  advance(scores: readonly Float32Array[]): Step;
}

import { l as rougeL, n as rougeN } from "js-rouge";

/** How close texts come to what they should be; means over texts, from 0 to 1. */
export type TextScores = {
  readonly texts: number;
  /** Share of texts that are the reference, but for white space around them. */
  readonly exactMatch: number;
  /** F1 of words, of pairs of words, and of the longest common subsequence of words. */
  readonly rouge1: number;
  readonly rouge2: number;
  readonly rougeL: number;
};

export type TextPair = { readonly generated: string; readonly reference: string };

/** Lower-case words: what Python's rouge_score takes for English, and letters of every script besides. */
const tokenizer = (text: string): string[] =>
  text
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== "");
/** A text is one sentence: "rougeL" of rouge_score, not its "rougeLsum". */
const segmenter = (text: string): string[] => [text];

/**
 * Scores generated texts against references. A text without words scores 0.
 * Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; numbers as rouge_score without stemming.
 */
export function scoreTexts(pairs: readonly TextPair[]): TextScores {
  const mean = (score: (pair: TextPair) => number): number =>
    pairs.reduce((sum, pair) => sum + score(pair), 0) / pairs.length;
  const words =
    (score: (generated: string, reference: string) => number) =>
    ({ generated, reference }: TextPair): number =>
      tokenizer(generated).length === 0 || tokenizer(reference).length === 0
        ? 0
        : score(generated, reference);
  return {
    texts: pairs.length,
    exactMatch: mean(({ generated, reference }) => (generated.trim() === reference.trim() ? 1 : 0)),
    rouge1: mean(words((generated, reference) => rougeN(generated, reference, { n: 1, tokenizer }))),
    rouge2: mean(words((generated, reference) => rougeN(generated, reference, { n: 2, tokenizer }))),
    rougeL: mean(words((generated, reference) => rougeL(generated, reference, { tokenizer, segmenter }))),
  };
}

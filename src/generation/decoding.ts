import { GraftError } from "../errors.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine, ResidentTensor, RunResult } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";

/** What a text is generated from. */
export type Source = {
  readonly tokens: readonly number[];
  /** The pictures among the tokens, [images, channels, height, width]; a picture alone may be [channels, height, width]. */
  readonly pixelValues?: Tensor<"float32"> | undefined;
};

/** A model loaded for generation. Several batches may be decoded with it, one after the other or at once. */
export interface CachedDecoder<M extends LanguageModel = LanguageModel> {
  readonly model: M;
  /** Most tokens that can be generated after `begun` tokens; undefined where the model sets no limit. */
  readonly longestText: number | undefined;
  /** The tokens that a text begins with, for `start` and for rules about tokens: a prompt, or a decoder's start token. */
  begin(source: Source, startTokenId: number | undefined): readonly number[];
  /** @throws GraftError if a source cannot be read */
  check(source: Source): void;
  /**
   * Begins a batch of texts, a row each.
   * @param padToken what shorter sources are padded with.
   */
  start(sources: readonly Source[], options: StartOptions): Promise<DecodingRun>;
  dispose(): Promise<void>;
}

export type StartOptions = {
  /** What shorter sources are padded with. Default: the model's own token. */
  readonly padTokenId?: number | undefined;
  /** What an encoder–decoder begins with. Default: the model's own token. */
  readonly startTokenId?: number | undefined;
};

/** One batch being decoded: caches stay in the engine, only scores come back. */
export interface DecodingRun {
  /** Scores of the token after what has been read, one row per text; then `push` the chosen ones. */
  scores(): Promise<Float32Array[]>;
  /** The most probable token of each text, which is what `argmax` finds in its `scores`; then `push` it. @throws as `argmax` */
  best(): Promise<number[]>;
  /** The next texts: text i is what text `rows`[i] was, and `tokens`[i]. */
  push(tokens: readonly number[], rows: readonly number[]): Promise<void>;
  /** Frees the caches. */
  release(): void;
}

/** @throws GraftError if a prompt is empty or has tokens that the model does not */
export function checkTokens(
  tokens: readonly number[],
  { model, isOther = () => false }: { model: LanguageModel; isOther?: (token: number) => boolean },
): void {
  if (tokens.length === 0)
    throw new GraftError("The prompt has no tokens. Give at least one; the model's BOS token will do.", {
      code: "empty-prompt",
    });
  const at = tokens.findIndex((token) => !model.hasToken(token) && !isOther(token));
  if (at >= 0)
    throw new GraftError(
      `Token ${tokens[at]} at place ${at} of the prompt is not in the vocabulary of ${model.vocabSize}. Does the tokenizer belong to the model?`,
      {
        code: "token-out-of-vocabulary",
        details: { token: tokens[at], place: at, vocabSize: model.vocabSize },
      },
    );
}

/** Rows of equal length, padded on one side, and masks with 0 where the padding is. */
export function padRows(
  rows: readonly (readonly number[])[],
  padTokenId: number,
  side: "left" | "right",
): { padded: number[][]; mask: number[][] } {
  const width = Math.max(...rows.map((row) => row.length));
  const filled = (row: readonly number[], filler: number): number[] => {
    const filling = Array<number>(width - row.length).fill(filler);
    return side === "left" ? [...filling, ...row] : [...row, ...filling];
  };
  return {
    padded: rows.map((row) => filled(row, padTokenId)),
    mask: rows.map((row) =>
      filled(
        row.map(() => 1),
        0,
      ),
    ),
  };
}

export const idTensor = (rows: readonly (readonly number[])[]): Tensor<"int64"> => ({
  dtype: "int64",
  shape: [rows.length, rows[0]!.length],
  data: BigInt64Array.from(rows.flat(), BigInt),
});

export const maskTensor = (rows: readonly (readonly number[])[]): Tensor<"float32"> => ({
  dtype: "float32",
  shape: [rows.length, rows[0]!.length],
  data: Float32Array.from(rows.flat()),
});

/**
 * Tokens that a run chose in the engine. Undefined where a score is not finite: then the scores themselves are to be looked at.
 */
export function chosenTokens({ best, sum }: RunResult["outputs"]): number[] | undefined {
  const sums = sum!.data as Float32Array;
  return sums.every(Number.isFinite) ? Array.from(best!.data as Float32Array) : undefined;
}

/** Tensors that stay in the engine for the texts of a batch. */
export type Uploaded = Readonly<Record<string, ResidentTensor>>;

/** The values of the parameters that live in JavaScript, an adapter's for one, as they are now. */
export const uploadParameters = async (model: LanguageModel, engine: Engine): Promise<Uploaded> =>
  engine.upload(await model.parameterFeeds());

export function releaseAll(uploaded: Uploaded): void {
  for (const resident of Object.values(uploaded)) resident.dispose();
}

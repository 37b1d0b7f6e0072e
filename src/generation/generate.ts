import { GraftError } from "../errors.ts";
import { BeamSearch } from "./beam-search.ts";
import { type GenerationConfig, newTokenLimit } from "./config.ts";
import { Continuation, type GeneratedToken, type GrowthOptions } from "./continuation.ts";
import type { CachedDecoder, DecodingRun, Source } from "./decoding.ts";
import type { GeneratedText, Growth, Step } from "./growth.ts";

export type GenerateOptions = {
  readonly config: GenerationConfig;
  /** Text of tokens; without it `text` stays empty, and there can be no stop strings. */
  readonly decode?: ((ids: number[]) => string) | undefined;
  /** Ends generation before the next token; what has been generated stays. */
  readonly signal?: AbortSignal | undefined;
};

/**
 * Writes the text of a source, token by token; with several beams all of it at the end, for the best text is not known before.
 * @throws GraftError if the source cannot be read or several texts are asked for, or if there are stop strings and no
 * `decode`; the signal's reason if aborted.
 */
export async function* streamText(
  decoder: CachedDecoder,
  source: Source,
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  const { config } = options;
  if (config.numReturnSequences > 1)
    throw new GraftError(
      `A stream is of one text, and numReturnSequences is ${config.numReturnSequences}. Use generate, or leave it out.`,
      { code: "invalid-generation-config", details: { numReturnSequences: config.numReturnSequences } },
    );
  const batch = beginBatch(decoder, [source], options);
  const [growth] = batch.growths;
  for await (const _ of grow(decoder, batch, options)) if (growth instanceof Continuation) yield growth.last!;
  if (growth instanceof BeamSearch) yield* growth.pieces;
}

/**
 * Writes the texts of several sources at once; shorter ones are padded. Of each source as many texts as the configuration
 * says, the best first; the token that ended a text is the last of its tokens.
 * @throws as `streamText`, but for several texts
 */
export async function generateTexts(
  decoder: CachedDecoder,
  sources: readonly Source[],
  options: GenerateOptions,
): Promise<GeneratedText[][]> {
  if (sources.length === 0) return [];
  const batch = beginBatch(decoder, sources, options);
  // Pictures of one size go through the vision tower together.
  for (const rows of groupBySize(sources)) {
    const part = {
      sources: rows.map((row) => sources[row]!),
      growths: batch.growths.filter((_, i) => rows.includes(batch.rows[i]!)),
      rows: batch.rows.filter((row) => rows.includes(row)).map((row) => rows.indexOf(row)),
    };
    for await (const _ of grow(decoder, part, options));
  }
  return sources.map((_, row) =>
    batch.growths
      .filter((_, i) => batch.rows[i] === row)
      .flatMap((growth) => (growth instanceof BeamSearch ? growth.results : [growth.result])),
  );
}

type Batch = {
  readonly sources: readonly Source[];
  readonly growths: readonly (Continuation | BeamSearch)[];
  /** Of each growth the source that it is about. */
  readonly rows: readonly number[];
};

function beginBatch(
  decoder: CachedDecoder,
  sources: readonly Source[],
  { config, decode }: GenerateOptions,
): Batch {
  for (const source of sources) decoder.check(source);
  const begun = sources.map((source) => decoder.begin(source, config.decoderStartTokenId));
  const width = Math.max(...begun.map(({ length }) => length));
  const limit = newTokenLimit(config, width, decoder.longestText);
  const draws = config.numBeams > 1 ? 1 : config.numReturnSequences;
  const rows = sources.flatMap((_, row) => Array<number>(draws).fill(row));
  const growths = rows.map((row, i) => {
    const seed = config.seed === undefined ? undefined : (config.seed + i) % 2 ** 32;
    const options: GrowthOptions = { config, begun: begun[row]!, limit, decode, seed };
    return config.numBeams > 1 ? new BeamSearch(options) : new Continuation(options);
  });
  return { sources, growths, rows };
}

/** Lets all texts of a batch grow until the last one ends, and comes up after each step. Rows of texts that have ended go. */
async function* grow(
  decoder: CachedDecoder,
  {
    sources,
    growths,
    rows,
  }: { sources: readonly Source[]; growths: readonly Growth[]; rows: readonly number[] },
  { config: { padTokenId, decoderStartTokenId }, signal }: GenerateOptions,
): AsyncGenerator<void> {
  signal?.throwIfAborted();
  let run: DecodingRun | undefined;
  try {
    run = await decoder.start(sources, { padTokenId, startTokenId: decoderStartTokenId });
    const greedy = growths.every((growth) => growth instanceof Continuation && growth.isGreedy);
    let rowsOf = rows.map((row) => [row]);
    for (;;) {
      signal?.throwIfAborted();
      const step = greedy ? takeBest(await run.best()) : takeScores(await run.scores());
      const next: { tokens: number[]; rows: number[] } = { tokens: [], rows: [] };
      rowsOf = growths.map((growth, i) => {
        if (growth.done) return [];
        const own = rowsOf[i]!;
        const { tokens, rows } = step(growth, own);
        if (growth.done) return [];
        next.rows.push(...rows.map((row) => own[row]!));
        const from = next.tokens.length;
        next.tokens.push(...tokens);
        return tokens.map((_, k) => from + k);
      });
      yield;
      if (next.tokens.length === 0) return;
      await run.push(next.tokens, next.rows);
    }
  } finally {
    run?.release();
  }
}

/** How a growth goes on in its rows. */
type Advance = (growth: Growth, own: readonly number[]) => Step;

const takeScores =
  (scores: readonly Float32Array[]): Advance =>
  (growth, own) =>
    growth.advance(own.map((row) => scores[row]!));

/** Of growths that only ever take the most probable token. */
const takeBest =
  (tokens: readonly number[]): Advance =>
  (growth, [row]) =>
    (growth as Continuation).take(tokens[row!]!);

/** Indices of sources, together where their pictures have one size. */
function groupBySize(sources: readonly Source[]): number[][] {
  const groups = new Map<string, number[]>();
  for (const [i, { pixelValues }] of sources.entries()) {
    const size = String(pixelValues?.shape.slice(-2));
    const group = groups.get(size) ?? [];
    groups.set(size, [...group, i]);
  }
  return [...groups.values()];
}

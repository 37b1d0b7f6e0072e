import { type Dim, dimAdd, input, op, symbol, type Value } from "../graph/index.ts";
import { labelChunks } from "../keeping/label-chunks.ts";
import { withDropoutNoise } from "../nn/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import type { LanguageModel } from "./language-model.ts";

/** Names of the inputs that say where labels are and what they are to predict. */
const inputNames = (vocabSize: number): { positions: string; targets: string; size: string }[] => {
  const { count } = labelChunks(vocabSize);
  return Array.from({ length: count }, (_, i) => {
    const name = (of: string): string => (count === 1 ? of : `${of}.${i}`);
    return { positions: name("label_positions"), targets: name("label_targets"), size: name("labels") };
  });
};

/** The inputs of a loss over a vocabulary of this size that depend on where a batch has labels. */
export const labelInputNames = (vocabSize: number): string[] =>
  inputNames(vocabSize).flatMap(({ positions, targets }) => [positions, targets]);

/** How many rows each chunk has, by the symbol that stands for it in a graph: as even as can be in as few as needed. */
export function labelSizes(vocabSize: number, labels: number): Record<string, number> {
  const names = inputNames(vocabSize);
  const filled = Math.min(names.length, Math.max(1, Math.ceil(labels / labelChunks(vocabSize).rows)));
  const end = (i: number): number => Math.round((labels * Math.min(i, filled)) / filled);
  return Object.fromEntries(names.map(({ size }, i) => [size, end(i + 1) - end(i)]));
}

/** What a loss reads of labels: places in the flattened batch, and what they are to predict. */
export function labelFeeds(
  vocabSize: number,
  places: readonly bigint[],
  targets: readonly bigint[],
  lossScale: number,
): Record<string, Tensor> {
  const sizes = labelSizes(vocabSize, places.length);
  const feeds: Record<string, Tensor> = { loss_scale: tensor("float32", [], Float32Array.of(lossScale)) };
  let start = 0;
  for (const names of inputNames(vocabSize)) {
    const end = start + sizes[names.size]!;
    const part = (of: readonly bigint[]): Tensor =>
      tensor("int64", [end - start], BigInt64Array.from(of.slice(start, end)));
    feeds[names.positions] = part(places);
    feeds[names.targets] = part(targets);
    start = end;
  }
  return feeds;
}

/** Some of the labelled rows, from `start` up to but not including `end`, and their labels. */
export type LabelChunk = { readonly start: Dim; readonly end: Dim; readonly targets: Value };

/**
 * loss_scale · Σ over labelled rows of -ln softmax(logits)_target, over the rows in chunks, so that the logits of all rows need
 * not be there at the same time. For large vocabularies the number of chunks is fixed when a graph is built, and their sizes are
 * those of what is fed (`labelFeeds`); some may be empty.
 * Inputs: `loss_scale` []; `label_positions` and `label_targets` [labels], or for chunk i `label_positions.<i>` and
 * `label_targets.<i>` [labels.<i>].
 */
export class LabelledLoss {
  /** Hidden states of the places with a label, [labels, hidden]. */
  readonly rows: Value;
  readonly chunks: readonly LabelChunk[];
  /** Shape []. */
  readonly scale: Value = input("loss_scale", "float32", []);
  private readonly logitsOf: (rows: Value, chunk: LabelChunk) => Value;

  /** `rowsAt` computes hidden states at given places, `logits` those of rows of one chunk. */
  constructor(
    vocabSize: number,
    {
      rowsAt,
      logits,
    }: { rowsAt: (positions: Value) => Value; logits: (rows: Value, chunk: LabelChunk) => Value },
  ) {
    let start: Dim = 0;
    const names = inputNames(vocabSize);
    this.chunks = names.map(({ targets, size }) => {
      const chunk = {
        start,
        end: dimAdd(start, symbol(size)),
        targets: input(targets, "int64", [symbol(size)]),
      };
      start = chunk.end;
      return chunk;
    });
    const positions = names.map(({ positions, size }) => input(positions, "int64", [symbol(size)]));
    this.rows = rowsAt(positions.length === 1 ? positions[0]! : op.concat(positions, 0));
    this.logitsOf = logits;
  }

  /** ln softmax(logits)_target of a chunk's rows, [labels of the chunk, 1]. */
  logProbabilities(rows: Value, chunk: LabelChunk): Value {
    return op.gatherElements(op.logSoftmax(this.logitsOf(rows, chunk)), op.unsqueeze(chunk.targets, 1), 1);
  }

  /** The rows of a chunk, of all of them. */
  rowsOf(chunk: LabelChunk, rows: Value): Value {
    return this.chunks.length === 1 ? rows : op.slice(rows, 0, chunk.start, chunk.end);
  }

  /** The loss of log probabilities of all chunks, []. */
  sum(logProbabilities: readonly Value[]): Value {
    const sums = logProbabilities.map((values) => op.reduceSum(values, { axes: [0, 1], keepdims: false }));
    return op.mul(op.neg(sums.reduce(op.add)), this.scale);
  }

  /** The loss as a function of everything, []. */
  get total(): Value {
    return this.over(this.chunks);
  }

  /** The part of the loss that some chunks have. */
  over(chunks: readonly LabelChunk[]): Value {
    return this.sum(chunks.map((chunk) => this.logProbabilities(this.rowsOf(chunk, this.rows), chunk)));
  }
}

/**
 * The loss of a model's hidden states [tokens, hidden]. `noise` is what dropouts below draw from, `ofLabels` the part that the head
 * draws from, at the labelled places; see `withDropoutNoise`.
 */
export const labelledLoss = (
  model: LanguageModel,
  {
    hidden,
    noise,
    ofLabels,
    ofModel,
  }: {
    hidden: () => Value;
    noise: readonly Value[];
    ofLabels: Value | undefined;
    ofModel: boolean;
  },
): LabelledLoss => {
  let chosen: Value | undefined;
  return new LabelledLoss(model.vocabSize, {
    rowsAt(positions) {
      chosen = ofLabels && op.gather(ofLabels, positions);
      return withDropoutNoise(noise, () => op.gather(hidden(), positions), { ofModel });
    },
    logits(rows, { start, end }) {
      const some = chosen ? [op.slice(chosen, 0, start, end)] : [];
      return withDropoutNoise(some, () => model.logits(rows), { ofModel });
    },
  });
};

import { type Dataset, loadBatches, textOf } from "../data/index.ts";
import { DataError } from "../errors.ts";
import { CausalLM, type LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import { checkedDataset } from "./checked-dataset.ts";
import { objectiveOf } from "./objective.ts";
import { EvaluationStep } from "./step.ts";

export type EvaluateOptions = {
  readonly engine: Engine;
  /** Token to pad with; it has no influence on the result. */
  readonly padTokenId: number;
  /** Where shorter examples are padded. Default "right". */
  readonly paddingSide?: "right" | "left" | undefined;
  /** Examples per batch. Default 8. */
  readonly batchSize?: number | undefined;
  /** Longer examples are cut at the end. Default: none are. */
  readonly maxLength?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What earlier evaluations of this model on this dataset have made; it is unloaded at the end. Default: one that is disposed of. */
  readonly step?: EvaluationStep | undefined;
  /** Called after every batch with the examples done so far. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
};

export type EvaluationResult = {
  /** Mean loss per label token, nats. */
  readonly loss: number;
  /** exp(loss). */
  readonly perplexity: number;
  /** Label tokens that the loss is the mean of. */
  readonly labelTokens: number;
  /** Wall time, seconds. */
  readonly seconds: number;
};

/**
 * Mean loss of a model over a dataset, each label token counting once. Examples of similar length share a batch, long ones
 * first: the mean is the same to rounding, there is less padding, and what does not fit into memory fails at once.
 * @throws DataError if no token of the dataset has a label.
 */
export async function evaluate(
  model: LanguageModel,
  dataset: Dataset,
  options: EvaluateOptions,
): Promise<EvaluationResult> {
  const {
    engine,
    padTokenId,
    paddingSide: side = "right",
    batchSize = 8,
    maxLength,
    signal,
    onProgress,
  } = options;
  const started = performance.now();
  const step = options.step ?? new EvaluationStep(model, engine);
  let [sum, labelTokens, done] = [0, 0, 0];
  try {
    const order = await evaluationOrder(model, dataset, { batchSize, signal });
    const batches = cutIntoBatches(order, batchSize);
    for await (const batch of loadBatches(checkedDataset(dataset, { model, maxLength }), batches, {
      padTokenId,
      side,
      labels: objectiveOf(model).labels,
      ...(signal && { signal }),
      knownPicture: (index) => step.pictureShape(index),
    })) {
      for (const part of batch.parts) sum += await step.run(part);
      labelTokens += batch.labelTokens;
      done += batch.indices.length;
      onProgress?.(done, dataset.length);
    }
  } finally {
    await (options.step ? step.unload() : step.dispose());
  }
  if (labelTokens === 0)
    throw new DataError(
      `${dataset.name}: none of its ${dataset.length} examples has a token to predict. Every label is -100, or the examples have one token each.`,
      { code: "no-labels", details: { dataset: dataset.name } },
    );
  const loss = sum / labelTokens;
  return { loss, perplexity: Math.exp(loss), labelTokens, seconds: (performance.now() - started) / 1000 };
}

/** Orders found before: a training run evaluates on the same dataset again and again. */
const orders = new WeakMap<Dataset, readonly number[]>();

/** Indices of all examples, from the longest to the shortest; as they are if order does not matter, or must not change. */
async function evaluationOrder(
  model: LanguageModel,
  dataset: Dataset,
  { batchSize, signal }: { batchSize: number; signal: AbortSignal | undefined },
): Promise<readonly number[]> {
  const indices = Array.from({ length: dataset.length }, (_, index) => index);
  // Some positions depend on the longest example of a batch: then it matters which examples share one.
  const fixed = model instanceof CausalLM && model.positionsDependOnBatch;
  if (fixed || indices.length <= batchSize) return indices;
  const known = orders.get(dataset);
  if (known) return known;
  const sizes: number[] = [];
  for (const index of indices) {
    signal?.throwIfAborted();
    const { inputIds, labels } = await textOf(dataset, index);
    sizes.push(inputIds.length + labels.length);
  }
  const order = indices.sort((a, b) => sizes[b]! - sizes[a]!);
  orders.set(dataset, order);
  return order;
}

function* cutIntoBatches(order: readonly number[], batchSize: number): Generator<readonly number[]> {
  for (let start = 0; start < order.length; start += batchSize) yield order.slice(start, start + batchSize);
}

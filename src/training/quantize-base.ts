import { type Batch, collate, type Example, IGNORED_LABEL } from "../data/index.ts";
import { gradients } from "../graph/index.ts";
import { type LanguageModel, labelSizes } from "../models/index.ts";
import {
  type CheckedLayer,
  checkProducts,
  type QuantizationReport,
  type QuantizeOptions,
  quantizeWeights,
} from "../quantization/index.ts";
import type { Engine } from "../runtime/index.ts";
import { objectiveOf } from "./objective.ts";
import { trainedParameters } from "./program.ts";

export type QuantizeBaseOptions = QuantizeOptions & {
  readonly engine: Engine;
  /** What the layers' products are checked with: a few hundred tokens are enough. */
  readonly batch: Batch;
  /** What rounding activations or gradients may cost a layer's products, as ‖y - ŷ‖ / ‖y‖. */
  readonly maxProductError?: number;
};

/** Tokens of an example that layers are checked with. */
const CHECKED_TOKENS = 128;

/** What layers are checked with: an example, of a long one its beginning. */
export function checkedBatch(model: LanguageModel, example: Example, padTokenId: number): Batch {
  const { labels } = objectiveOf(model);
  const cut = labels === "aligned" ? CHECKED_TOKENS : undefined;
  const short = {
    ...example,
    inputIds: example.inputIds.slice(0, cut),
    labels: example.labels.slice(0, cut),
  };
  const hasLabels = short.labels.slice(1).some((label) => label !== IGNORED_LABEL);
  return collate([hasLabels ? short : example], { padTokenId, labels });
}

/**
 * Quantises the frozen linear layers of a model and checks each with a batch. Call it after adapters are in place and before a
 * graph is built.
 * @throws CheckpointError if weights cannot be read or codes not be written, RuntimeFailure if ONNX Runtime fails.
 */
export async function quantizeBase(
  model: LanguageModel,
  { engine, batch, maxProductError, ...options }: QuantizeBaseOptions,
): Promise<{ report: QuantizationReport; layers: readonly CheckedLayer[] }> {
  const report = await quantizeWeights(model, options);
  const objective = objectiveOf(model);
  const whole = objective.loss({
    image: objective.imageSize(batch),
    dropout: false,
    packed: batch.segments !== undefined,
  });
  // Chunks without a row have no product to check.
  const sizes = Object.values(labelSizes(model.vocabSize, batch.labelTokens));
  const loss = whole.over(whole.chunks.filter((_, i) => sizes[i]! > 0));
  const trained = trainedParameters(model).map((parameter) => parameter.value);
  const layers = await checkProducts(report, {
    engine,
    values: [loss, ...gradients(loss, trained)],
    feeds: {
      ...(await model.parameterFeeds()),
      ...objective.feeds(batch, { lossScale: 1 / Math.max(batch.labelTokens, 1) }),
    },
    ...(maxProductError !== undefined && { maxError: maxProductError }),
  });
  return { report, layers };
}

import type { LoadedBatch } from "../data/index.ts";
import { DataError, TrainingError } from "../errors.ts";

/** The error for a loss or gradient that is no number to go on with. `before` is the loss of the step before. */
export function diverged({
  step,
  loss,
  gradNorm,
  before,
  learningRate,
  batches,
}: {
  step: number;
  loss: number;
  gradNorm: number;
  before: number | undefined;
  learningRate: number;
  batches: readonly LoadedBatch[];
}): TrainingError {
  const what = Number.isFinite(loss) ? `gradient norm is ${gradNorm}` : `loss is ${loss}`;
  const history = before === undefined ? "" : ` (the loss was ${before.toFixed(4)} a step before)`;
  return new TrainingError(
    `The ${what} at step ${step}${history}. Lower the learning rate (now ${learningRate}), clip gradients (maxGradNorm), or look for broken weights or data.`,
    {
      code: "diverged",
      details: { step, loss, gradNorm, examples: batches.flatMap(({ indices }) => indices) },
    },
  );
}

/** The error for a step that has nothing to learn. */
export function withoutLabels(dataset: string, step: number, batches: readonly LoadedBatch[]): DataError {
  const examples = batches.flatMap(({ indices }) => indices.map((index) => index + 1));
  return new DataError(
    `${dataset}: step ${step} has nothing to learn: no token of example${examples.length > 1 ? "s" : ""} ${examples.slice(0, 8).join(", ")} has a label. Remove them, raise maxLength, or use larger batches.`,
    { code: "no-labels", details: { dataset, examples } },
  );
}

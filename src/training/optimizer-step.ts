import type { LoadedBatch } from "../data/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { mixSeeds } from "../tensor/random.ts";
import type { StepEnd } from "./callbacks.ts";
import { clipGradNorm } from "./clip-grad-norm.ts";
import { diverged, withoutLabels } from "./run-errors.ts";
import type { RunContext, RunParts } from "./run-parts.ts";
import { epochsSeen, withStep } from "./run-state.ts";

/**
 * Forward, backward and update over one step's batches; takes the state a step further.
 * @param before the loss of the step before, for messages.
 */
export async function optimizerStep(
  { settings, trainDataset }: RunContext,
  { step, optimizer, schedule, state, weights, sampler, prefixCache }: RunParts,
  batches: readonly LoadedBatch[],
  before: number | undefined,
): Promise<StepEnd> {
  await step.prepare(batches[0]!.parts[0]!);
  const started = performance.now();
  const labelTokens = batches.reduce((sum, batch) => sum + batch.labelTokens, 0);
  if (labelTokens === 0) throw withoutLabels(trainDataset.name, state.step + 1, batches);
  let loss = 0;
  const gradients = new Map<string, Tensor<"float32">>();
  for (const [micro, { parts }] of batches.entries())
    for (const [index, part] of parts.entries()) {
      if (part.labelTokens === 0) continue;
      const seed = mixSeeds([settings.seed, state.step, micro, ...(index > 0 ? [index] : [])]);
      const result = await step.run(part, { lossScale: 1 / labelTokens, seed });
      loss += result.loss;
      for (const [name, values] of result.gradients) accumulate(gradients, name, values, weights);
    }
  const gradNorm = clipGradNorm(gradients, settings.maxGradNorm);
  if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
    throw diverged({
      step: state.step + 1,
      loss,
      gradNorm,
      before,
      learningRate: settings.learningRate,
      batches,
    });
  const learningRate = schedule(state.step);
  optimizer.learningRate = learningRate;
  optimizer.step(gradients);

  const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
  state.step++;
  state.tokensSeen += tokens;
  state.batchInEpoch += batches.length;
  if (state.batchInEpoch === state.batchesPerEpoch) {
    const epoch = state.epoch + 1;
    const { batchesPerEpoch } = sampler.atEpoch(epoch);
    await prefixCache?.epochEnded();
    Object.assign(state, { epoch, batchInEpoch: 0, batchesPerEpoch });
  }
  const seconds = (performance.now() - started) / 1000;
  const end: StepEnd = {
    step: state.step,
    epoch: epochsSeen(state),
    loss,
    gradNorm,
    learningRate,
    tokens,
    seconds,
    tokensPerSecond: tokens / seconds,
  };
  state.unlogged = withStep(state.unlogged, end);
  return end;
}

/** Adds a micro-batch's gradient; the first one is taken as it is. */
function accumulate(
  sums: Map<string, Tensor<"float32">>,
  name: string,
  values: Float32Array,
  weights: ReadonlyMap<string, Tensor<"float32">>,
): void {
  const sum = sums.get(name);
  if (!sum) return void sums.set(name, tensor("float32", weights.get(name)!.shape, values));
  for (let i = 0; i < values.length; i++) sum.data[i]! += values[i]!;
}

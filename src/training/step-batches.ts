import { type LoadedBatch, loadBatches, type Sampler } from "../data/index.ts";
import { objectiveOf } from "./objective.ts";
import type { RunContext } from "./run-parts.ts";
import type { TrainerState } from "./state.ts";
import type { TrainingStep } from "./step.ts";

/** The batches of one optimizer step after another, from where the state is; no step reaches into the next epoch. */
export async function* stepBatches(
  { settings, model, trainDataset, padTokenId, signal }: RunContext,
  sampler: Sampler,
  state: TrainerState,
  step: TrainingStep,
): AsyncGenerator<LoadedBatch[], void, undefined> {
  const { labels } = objectiveOf(model.baseModel);
  const { paddingSide: side, padToMultipleOf, gradientAccumulationSteps } = settings;
  const loading = {
    ...{ padTokenId, side, padToMultipleOf, labels },
    depth: gradientAccumulationSteps + 1, // the whole next step, while this one is computed
    ...(signal && { signal }),
    knownPicture: (index: number) => step.pictureShape(index),
  };
  for (;;) {
    let group: LoadedBatch[] = [];
    let left = state.batchesPerEpoch - state.batchInEpoch;
    const indices = sampler.atEpoch(state.epoch).batches(state.batchInEpoch);
    for await (const batch of loadBatches(trainDataset, indices, loading)) {
      group.push(batch);
      left--;
      if (group.length < gradientAccumulationSteps && left > 0) continue;
      yield group;
      group = [];
    }
  }
}

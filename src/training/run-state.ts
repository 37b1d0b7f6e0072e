import type { PeftModel } from "../adapters/index.ts";
import { readTensorAsFloat32, type TensorEntry } from "../checkpoint/index.ts";
import { BatchSampler, type Dataset, type Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import { hashText } from "../tensor/random.ts";
import type { StepEnd } from "./callbacks.ts";
import { optionsFingerprint, type TrainingOptions } from "./options.ts";
import type { JsonValue, TrainerState, Unlogged } from "./state.ts";
import { version } from "./version.ts";

/** What the first state of a run, and its fingerprint, follow from. */
type Described = {
  readonly settings: TrainingOptions;
  readonly model: PeftModel<LanguageModel>;
  readonly trainDataset: Dataset;
  readonly evalDataset: Dataset | undefined;
};

/** The state before the first step. */
export function initialState(described: Described, sampler: Sampler): TrainerState {
  const { settings } = described;
  return {
    step: 0,
    ...lengthOf(sampler, settings),
    epoch: 0,
    batchInEpoch: 0,
    batchesPerEpoch: sampler.batchesPerEpoch,
    batchSize: settings.batchSize,
    seed: settings.seed,
    tokensSeen: 0,
    evaluationsWithoutImprovement: 0,
    history: [],
    fingerprint: fingerprint(described),
    versions: { graftjs: version },
  };
}

/** Share of the data seen, in epochs. */
export const epochsSeen = ({ epoch, batchInEpoch, batchesPerEpoch }: TrainerState): number =>
  epoch + batchInEpoch / batchesPerEpoch;

/** Whether what is done every so often is due after the step just taken. */
export function isDue(
  { step, totalSteps, batchInEpoch }: TrainerState,
  strategy: "no" | "steps" | "epoch",
  every: number | undefined,
): boolean {
  if (strategy === "epoch") return batchInEpoch === 0 || step >= totalSteps;
  return strategy === "steps" && step % every! === 0;
}

/** Epochs whose steps are counted, where they differ; later ones are taken to have as many as these on average. */
const COUNTED = 1000;

/** How long a run is. An epoch ends with a step, which may then have fewer batches. */
function lengthOf(
  sampler: Sampler,
  { maxSteps, numTrainEpochs, gradientAccumulationSteps }: TrainingOptions,
): { totalSteps: number; totalEpochs: number } {
  const stepsIn = (epoch: number): number =>
    Math.ceil(sampler.atEpoch(epoch).batchesPerEpoch / gradientAccumulationSteps);
  if (sampler instanceof BatchSampler) {
    const perEpoch = stepsIn(0);
    return maxSteps === undefined
      ? { totalSteps: Math.ceil(numTrainEpochs * perEpoch), totalEpochs: numTrainEpochs }
      : { totalSteps: maxSteps, totalEpochs: maxSteps / perEpoch };
  }
  let steps = 0;
  for (let epoch = 0; epoch < COUNTED; epoch++) {
    const more = stepsIn(epoch);
    if (maxSteps === undefined && epoch + 1 >= numTrainEpochs)
      return { totalSteps: steps + Math.ceil((numTrainEpochs - epoch) * more), totalEpochs: numTrainEpochs };
    if (maxSteps !== undefined && steps + more >= maxSteps)
      return { totalSteps: maxSteps, totalEpochs: epoch + (maxSteps - steps) / more };
    steps += more;
  }
  const mean = steps / COUNTED;
  return maxSteps === undefined
    ? { totalSteps: Math.ceil(numTrainEpochs * mean), totalEpochs: numTrainEpochs }
    : { totalSteps: maxSteps, totalEpochs: maxSteps / mean };
}

const fingerprint = ({
  settings,
  model,
  trainDataset,
  evalDataset,
}: Described): Record<string, JsonValue> => ({
  ...optionsFingerprint(settings),
  examples: trainDataset.length,
  evaluationExamples: evalDataset?.length ?? null,
  modelType: model.baseModel.modelType,
  trained: hashText([...model.trainableParameters().keys()].join("\n")),
  r: model.peftConfig.r,
  loraAlpha: model.peftConfig.loraAlpha,
  useRslora: model.peftConfig.useRslora,
  loraDropout: model.peftConfig.loraDropout,
  scalings: hashText(model.selection.targets.map(({ name, scaling }) => `${name} ${scaling}`).join("\n")),
});

/** Values of the trained parameters in a saved adapter. */
export async function readWeights(
  saved: ReadonlyMap<string, TensorEntry>,
  trained: ReadonlyMap<string, unknown>,
): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const [name, entry] of saved)
    if (trained.has(name)) values.set(name, (await readTensorAsFloat32(entry)).data);
  return values;
}

/** What is trained of a saved adapter. Base weights saved along have not changed, and the file may not stay. */
export function trainedOnly(
  saved: ReadonlyMap<string, TensorEntry>,
  peft: PeftModel,
): ReadonlyMap<string, TensorEntry> {
  const unchanged = new Set(peft.stateDict().keys());
  for (const name of peft.trainableParameters().keys()) unchanged.delete(name);
  return new Map([...saved].filter(([name]) => !unchanged.has(name)));
}

/** Takes another step into what the next log entry tells. */
export const withStep = (
  { steps, loss, tokens, seconds }: Unlogged = {
    steps: 0,
    loss: 0,
    gradNorm: 0,
    learningRate: 0,
    tokens: 0,
    seconds: 0,
  },
  end: StepEnd,
): Unlogged => ({
  steps: steps + 1,
  loss: loss + end.loss,
  gradNorm: end.gradNorm,
  learningRate: end.learningRate,
  tokens: tokens + end.tokens,
  seconds: seconds + end.seconds,
});

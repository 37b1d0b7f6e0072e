import { loadAdapterTensors, type PeftModel } from "../adapters/index.ts";
import type { Dataset, Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { quantizedBase } from "./base-weights.ts";
import { type BaseWeightsReport, notify, type PackingReport, type TrainerCallback } from "./callbacks.ts";
import { GradientCheckpointing } from "./gradient-checkpointing.ts";
import type { MetricsWriter } from "./metrics.ts";
import { AdamW } from "./optimizers.ts";
import type { TrainingOptions } from "./options.ts";
import type { PrefixCache } from "./prefix-cache/index.ts";
import { prefixCacheOf } from "./run-prefix-cache.ts";
import { initialState, readWeights, trainedOnly } from "./run-state.ts";
import type { RunStore, SavedRun } from "./run-store.ts";
import { sample } from "./sample.ts";
import { getScheduler, getWarmupSteps, type Schedule } from "./schedules.ts";
import { assertResumable, type TrainerState } from "./state.ts";
import { TrainingStep } from "./step.ts";

/** What a run is given. */
export type RunContext = {
  readonly model: PeftModel<LanguageModel>;
  readonly trainDataset: Dataset;
  readonly evalDataset: Dataset | undefined;
  readonly padTokenId: number;
  readonly callbacks: readonly TrainerCallback[];
  readonly metrics: readonly MetricsWriter[];
  readonly signal: AbortSignal | undefined;
  readonly settings: TrainingOptions;
  readonly engine: Engine;
  readonly store: RunStore | undefined;
  readonly saved: SavedRun | undefined;
};

/** What a run works with from its first step to its last. */
export type RunParts = {
  readonly step: TrainingStep;
  readonly prefixCache: PrefixCache | undefined;
  readonly checkpointing: GradientCheckpointing | undefined;
  readonly baseWeights: BaseWeightsReport | undefined;
  readonly optimizer: AdamW;
  readonly weights: ReadonlyMap<string, Tensor<"float32">>;
  readonly sampler: Sampler;
  readonly packing: PackingReport | undefined;
  readonly metrics: readonly MetricsWriter[];
  readonly schedule: Schedule;
  readonly state: TrainerState;
  readonly bestWeights: ReadonlyMap<string, Float32Array> | undefined;
};

/** Loads everything; goes on where `saved` stopped. @throws TrainingError if it cannot. */
export async function loadRun(context: RunContext): Promise<RunParts> {
  const { model: peft, settings, engine, store, saved, trainDataset, signal } = context;
  const { sampler, packing } = await sample(trainDataset, settings, { ...(signal && { signal }) });
  const state = initialState(context, sampler);
  if (saved) {
    assertResumable(saved.state.fingerprint, state.fingerprint);
    await loadAdapterTensors(peft, trainedOnly(saved.adapter, peft), saved.location);
    const { totalSteps, totalEpochs, versions } = state;
    Object.assign(state, saved.state, { totalSteps, totalEpochs, versions });
  }
  await peft.materialize();
  const weights = new Map([...peft.trainableParameters()].map(([name, { data }]) => [name, data!]));
  const { adamBeta1, adamBeta2, adamEpsilon: eps, weightDecay, learningRate } = settings;
  const optimizer = new AdamW(weights, { learningRate, betas: [adamBeta1, adamBeta2], eps, weightDecay });
  if (saved) optimizer.loadStateDict(saved.optimizer);
  const schedule = getScheduler(settings.lrSchedulerType, {
    learningRate,
    trainingSteps: state.totalSteps,
    warmupSteps: getWarmupSteps(state.totalSteps, settings),
  });
  const bestWeights =
    settings.loadBestModelAtEnd && state.best?.checkpoint !== undefined && store
      ? await readWeights(await store.readAdapter(state.best.checkpoint), weights)
      : undefined;
  const baseWeights = await quantizedBase(context, sampler, state);
  const prefixCache = prefixCacheOf(context, state);
  const { gradientCheckpointing, memoryLimit } = settings;
  const isAsked = gradientCheckpointing === true || (gradientCheckpointing && memoryLimit !== undefined);
  const checkpointing = isAsked ? new GradientCheckpointing(settings) : undefined;
  const step = new TrainingStep(peft.baseModel, engine, {
    ...settings,
    prefixCache,
    checkpointing,
    onWarning: (message) => void notify(context.callbacks, "onWarning", { message }),
  });
  const files = (await store?.metrics(saved && state.step)) ?? [];
  return {
    step,
    prefixCache,
    checkpointing,
    baseWeights,
    optimizer,
    weights,
    sampler,
    packing,
    metrics: [...files, ...context.metrics],
    schedule,
    state,
    bestWeights,
  };
}

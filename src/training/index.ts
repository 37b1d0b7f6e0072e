export {
  type BaseWeightsReport,
  type CallbackResult,
  type Evaluation,
  notify,
  type PackingReport,
  type Saved,
  type StepEnd,
  type TrainBegin,
  type TrainEnd,
  type TrainerCallback,
  type TrainingEvents,
} from "./callbacks.ts";
export {
  checkpointFiles,
  checkpointName,
  checkpointStep,
  checkpointsToDelete,
  latestCheckpoint,
  sortCheckpoints,
} from "./checkpoints.ts";
export { type ClipGradNormOptions, clipGradNorm } from "./clip-grad-norm.ts";
export { EarlyStopping, type EarlyStoppingOptions, type EarlyStoppingState } from "./early-stopping.ts";
export { type EvaluateOptions, type EvaluationResult, evaluate } from "./evaluate.ts";
export type { CheckpointingReport } from "./gradient-checkpointing.ts";
export { keepMetricsLines, type MetricsWriter, metricsLine } from "./metrics.ts";
export { AdamW, type AdamWOptions, decaysWeight, type TensorMap } from "./optimizers.ts";
export {
  optionsFingerprint,
  resolveTrainingOptions,
  type TrainingOptions,
  type TrainingOptionsInput,
  trainingOptionsSchema,
} from "./options.ts";
export type { KeptDType, PrefixCacheReport } from "./prefix-cache/index.ts";
export { checkedBatch, type QuantizeBaseOptions, quantizeBase } from "./quantize-base.ts";
export type { TrainResult } from "./run.ts";
export type { RunStore, SavedRun } from "./run-store.ts";
export {
  getScheduler,
  getWarmupSteps,
  type Schedule,
  type ScheduleOptions,
  type SchedulerType,
  schedulerTypes,
} from "./schedules.ts";
export {
  assertResumable,
  fingerprintDifferences,
  type HistoryEntry,
  type JsonValue,
  parseTrainerState,
  serializeTrainerState,
  type TrainerState,
} from "./state.ts";
export { EvaluationStep, type StepResult, TrainingStep } from "./step.ts";
export { encodeFileStart, encodeScalars, frameRecord } from "./tensorboard.ts";
export { Trainer, type TrainerOptions } from "./trainer.ts";
export { version } from "./version.ts";

import type { CheckpointingReport } from "./gradient-checkpointing.ts";
import type { PrefixCacheReport } from "./prefix-cache/index.ts";

/** Returned by a callback to end training after the current step; everything is saved as at a normal end. */
// biome-ignore lint/suspicious/noConfusingVoidType: a callback that returns nothing must fit
export type CallbackResult = "stop" | void;

type Awaitable<T> = T | Promise<T>;

export type TrainBegin = {
  /** Optimizer steps done before, by the run being resumed; 0 for a new run. */
  step: number;
  /** Optimizer steps at which training will end. */
  totalSteps: number;
  /** Epochs that makes, possibly not whole. */
  totalEpochs: number;
  examples: number;
  /** With packing: what it has come to in the first epoch. */
  packing?: PackingReport;
  trainableParameters: number;
  /** Until here: reading and building what is trained, its graph, and the session that runs it. */
  loadSeconds: number;
  /** What the frozen weights are kept as; undefined for float32. */
  baseWeights?: BaseWeightsReport;
  /** What is done once per example, and where that is kept; undefined if it was not asked for. */
  prefixCache?: PrefixCacheReport;
  /** What the backward pass computes again; undefined if it was not asked for. */
  gradientCheckpointing?: CheckpointingReport;
};

export type PackingReport = {
  /** Rows that the examples became. */
  rows: number;
  /** Tokens up to which rows were filled. */
  packLength: number;
  /** Share of the batches that is padding, from 0 to 1: without packing, and with it. */
  padding: { without: number; with: number };
};

export type BaseWeightsReport = {
  dtype: "int8" | "int4";
  /** Linear layers in few bits, and those that keep float32, since the error would be too large. */
  quantized: number;
  kept: string[];
  /** Layers that multiply in float32 in one direction, or have input channels kept apart. */
  partly: string[];
  bytes: number;
};

/** One optimizer step, that is, `gradientAccumulationSteps` batches. */
export type StepEnd = {
  /** Optimizer steps done, this one included. */
  step: number;
  /** Share of the data seen, e.g. 1.5 in the middle of the second epoch. */
  epoch: number;
  /** Mean loss per label token, nats. */
  loss: number;
  /** Joint 2-norm of the gradients, before clipping. */
  gradNorm: number;
  /** Rate used in this step. */
  learningRate: number;
  /** Tokens in this step's batches, without padding. */
  tokens: number;
  /** Wall time of this step, seconds. */
  seconds: number;
  tokensPerSecond: number;
};

export type Evaluation = {
  step: number;
  epoch: number;
  /** Mean loss per label token, nats. */
  loss: number;
  /** exp(loss). */
  perplexity: number;
  /** Label tokens the loss is the mean of. */
  labelTokens: number;
  /** Wall time, seconds. */
  seconds: number;
  /** Whether this is the lowest loss so far. */
  best: boolean;
};

export type Saved = {
  step: number;
  /** Where it lies: a folder, or the name the caller's store uses. */
  location: string;
};

/** Something that does not end training: what is kept of frozen layers could not be written, say. */
export type Warning = { message: string };

export type TrainEnd = {
  step: number;
  epoch: number;
  /** Why training ended. */
  reason: "finished" | "early-stopping" | "callback" | "aborted";
  /** Mean training loss over the steps of this run; NaN if it made none. */
  loss: number;
  /** Wall time of this run, seconds. */
  seconds: number;
  best?: { step: number; loss: number };
};

/** What happens, by the name of the callback that hears of it. */
export type TrainingEvents = {
  onTrainBegin: TrainBegin;
  onStepEnd: StepEnd;
  onEvaluate: Evaluation;
  onSave: Saved;
  onTrainEnd: TrainEnd;
  onWarning: Warning;
};

/**
 * Watches training. Each function is awaited before training goes on, and what it throws ends training;
 * return `"stop"` to end it in good order.
 */
export type TrainerCallback = {
  [Name in keyof TrainingEvents]?: (event: TrainingEvents[Name]) => Awaitable<CallbackResult>;
};

/**
 * Tells all callbacks, one after the other, in order.
 * @returns whether any of them asked to stop; the others hear of the event all the same.
 */
export async function notify<Name extends keyof TrainingEvents>(
  callbacks: readonly TrainerCallback[],
  name: Name,
  event: TrainingEvents[Name],
): Promise<boolean> {
  let stop = false;
  for (const callback of callbacks) if ((await callback[name]?.(event)) === "stop") stop = true;
  return stop;
}

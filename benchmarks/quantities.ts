import type { GenerationWork, TrainingWork } from "./cases.ts";
import type { GenerationRun, Measurement, TrainingRun } from "./measure.ts";
import { median } from "./statistics.ts";

/** What is read off a measurement. */
export type Quantity = {
  /** Whether less of it is better. Speed-ups are turned so that more is better; shares of memory are not. */
  readonly better: "less" | "more";
  readonly unit: "s" | "B" | "tokens/s";
  of(run: Measurement, work: TrainingWork | GenerationWork): number;
};

const isTrainingRun = (run: Measurement): run is TrainingRun => "stepEnds" in run;

const training =
  (read: (run: TrainingRun, work: TrainingWork) => number): Quantity["of"] =>
  (run, work) => {
    if (!isTrainingRun(run) || work.kind !== "training") throw new Error("This is not a training run.");
    return read(run, work);
  };

const generation =
  (read: (run: GenerationRun) => number): Quantity["of"] =>
  (run) => {
    if (isTrainingRun(run)) throw new Error("This is not a run of generation.");
    return read(run);
  };

/** Seconds of each step, the reading of its batch included. */
export const stepSeconds = ({ stepEnds }: TrainingRun): number[] =>
  stepEnds.map((end, i) => end - (stepEnds[i - 1] ?? 0));

const epochEnd = ({ stepEnds }: TrainingRun, { batches }: TrainingWork, epochs: number): number =>
  stepEnds[epochs * batches - 1]!;

/** Wall time of the first epochs, loading apart. */
export const firstEpochs = (epochs: number): Quantity => ({
  better: "less",
  unit: "s",
  of: training((run, work) => epochEnd(run, work, epochs)),
});

export const quantities = {
  /** Median over the steps after the warm-up, or after the first epoch where there are several. */
  step: {
    better: "less",
    unit: "s",
    of: training((run, { warmup, epochs, batches }) =>
      median(stepSeconds(run).slice(epochs > 1 ? batches : warmup)),
    ),
  },
  /** All epochs, loading apart. */
  train: {
    better: "less",
    unit: "s",
    of: training((run, work) => epochEnd(run, work, work.epochs)),
  },
  firstEpoch: firstEpochs(1),
  /** Mean of the epochs after the first. */
  laterEpoch: {
    better: "less",
    unit: "s",
    of: training(
      (run, work) => (epochEnd(run, work, work.epochs) - epochEnd(run, work, 1)) / (work.epochs - 1),
    ),
  },
  /** From opening the checkpoint to the end of the first step. */
  firstStep: {
    better: "less",
    unit: "s",
    of: training(({ loadSeconds, stepEnds }) => loadSeconds + stepEnds[0]!),
  },
  load: { better: "less", unit: "s", of: ({ loadSeconds }) => loadSeconds },
  memory: { better: "less", unit: "B", of: ({ peakRssBytes }) => peakRssBytes },
  /** All rows together, after the prompt; the first repeat warms up. */
  tokens: {
    better: "more",
    unit: "tokens/s",
    of: generation(({ tokensPerSecond }) => median(afterFirst(tokensPerSecond))),
  },
  /** Until the first new token. */
  prompt: {
    better: "less",
    unit: "s",
    of: generation(({ promptSeconds }) => median(afterFirst(promptSeconds))),
  },
} as const satisfies Record<string, Quantity>;

const afterFirst = (values: readonly number[]): readonly number[] =>
  values.length > 1 ? values.slice(1) : values;

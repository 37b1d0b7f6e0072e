import { closest, TrainingError } from "../errors.ts";

/** Names of learning-rate schedules, as in transformers' `lr_scheduler_type`. */
export const schedulerTypes = ["constant", "constant_with_warmup", "linear", "cosine"] as const;

export type SchedulerType = (typeof schedulerTypes)[number];

export type ScheduleOptions = {
  /** Peak learning rate. */
  learningRate: number;
  /** Steps over which the rate rises linearly from 0. Default 0. */
  warmupSteps?: number;
  /** Optimizer steps of the whole training; `linear` and `cosine` reach 0 there. */
  trainingSteps: number;
};

/** The learning rate of optimizer step `step`, counted from 0. */
export type Schedule = (step: number) => number;

/**
 * A learning-rate schedule. With w warm-up steps of n in all, and p = (i − w) / max(1, n − w):
 *
 *     i < w                     i / max(1, w)
 *     constant(_with_warmup)    1
 *     linear                    max(0, (n − i) / max(1, n − w))
 *     cosine                    max(0, (1 + cos πp) / 2)
 *
 * times `learningRate`. As in transformers the very first of the warm-up steps has rate 0. Unlike there,
 * `constant` heeds `warmupSteps` instead of ignoring them, and so equals `constant_with_warmup`.
 *
 * @throws TrainingError if the type is unknown or a number is out of range.
 * Source: transformers optimization.py, `get_scheduler` (`num_cycles` 0.5).
 */
export function getScheduler(
  type: SchedulerType,
  { learningRate, warmupSteps = 0, trainingSteps }: ScheduleOptions,
): Schedule {
  const problems: string[] = [];
  if (!schedulerTypes.includes(type)) {
    problems.push(
      `no schedule is called "${type}"${closest(type, schedulerTypes)}; there are ${schedulerTypes.join(", ")}`,
    );
  }
  if (!(learningRate >= 0 && learningRate < Infinity))
    problems.push(`learningRate must be a finite number of at least 0, got ${learningRate}`);
  if (!Number.isInteger(warmupSteps) || warmupSteps < 0)
    problems.push(`warmupSteps must be a whole number of at least 0, got ${warmupSteps}`);
  if (!Number.isInteger(trainingSteps) || trainingSteps < 0)
    problems.push(`trainingSteps must be a whole number of at least 0, got ${trainingSteps}`);
  if (problems.length > 0)
    throw new TrainingError(`Learning-rate schedule: ${problems.join("; ")}.`, {
      code: "invalid-schedule",
      details: { problems },
    });

  const decaySteps = Math.max(1, trainingSteps - warmupSteps);
  const afterWarmup: Schedule = {
    constant: () => 1,
    constant_with_warmup: () => 1,
    linear: (step: number) => Math.max(0, (trainingSteps - step) / decaySteps),
    cosine: (step: number) =>
      Math.max(0, 0.5 * (1 + Math.cos(Math.PI * ((step - warmupSteps) / decaySteps)))),
  }[type];
  return (step) => learningRate * (step < warmupSteps ? step / Math.max(1, warmupSteps) : afterWarmup(step));
}

/**
 * Warm-up steps from either setting: `warmupSteps` if positive, else ⌈ratio · trainingSteps⌉.
 * Source: transformers training_args.py, `get_warmup_steps`.
 */
export const getWarmupSteps = (
  trainingSteps: number,
  { warmupSteps = 0, warmupRatio = 0 }: { warmupSteps?: number; warmupRatio?: number },
): number => (warmupSteps > 0 ? warmupSteps : Math.ceil(trainingSteps * warmupRatio));

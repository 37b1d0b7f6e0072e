import { TrainingError } from "../errors.ts";

export type EarlyStoppingOptions = {
  /** Evaluations without improvement after which training stops; at least 1. */
  patience: number;
  /** How much lower than the best the loss must be to count as improvement. Default 0. */
  minDelta?: number;
};

/** What `EarlyStopping` remembers between evaluations; plain data, for the trainer state. */
export type EarlyStoppingState = {
  /** Lowest metric so far; undefined before the first evaluation. */
  best: number | undefined;
  /** Evaluations since the last improvement by more than `minDelta`. */
  waited: number;
};

/**
 * Stops training once the evaluation loss no longer falls.
 *
 * An evaluation counts as an improvement if it is lower than the best so far by more than `minDelta`. As in
 * transformers the best is lowered by any lower value, so many gains within `minDelta` still use up the
 * patience. NaN never improves.
 *
 * Source: transformers trainer_callback.py, `EarlyStoppingCallback`; `Trainer._determine_best_metric`.
 */
export class EarlyStopping {
  readonly patience: number;
  readonly minDelta: number;
  #state: EarlyStoppingState = { best: undefined, waited: 0 };

  /** @throws TrainingError if `patience` is not a positive whole number or `minDelta` is negative. */
  constructor({ patience, minDelta = 0 }: EarlyStoppingOptions) {
    const problems: string[] = [];
    if (!Number.isInteger(patience) || patience < 1)
      problems.push(`patience must be a whole number of at least 1, got ${patience}`);
    if (!(minDelta >= 0 && minDelta < Infinity))
      problems.push(`minDelta must be a finite number of at least 0, got ${minDelta}`);
    if (problems.length > 0)
      throw new TrainingError(`Early stopping: ${problems.join("; ")}.`, {
        code: "invalid-early-stopping",
        details: { problems },
      });
    this.patience = patience;
    this.minDelta = minDelta;
  }

  /** Takes an evaluation's metric; says whether it is the best so far and whether to stop now. */
  update(metric: number): { best: boolean; stop: boolean } {
    const { best, waited } = this.#state;
    const lower = best === undefined ? !Number.isNaN(metric) : metric < best;
    const improved = lower && (best === undefined || best - metric > this.minDelta);
    this.#state = { best: lower ? metric : best, waited: improved ? 0 : waited + 1 };
    return { best: lower, stop: this.#state.waited >= this.patience };
  }

  /** A copy of what must survive a restart. */
  get state(): EarlyStoppingState {
    return { ...this.#state };
  }

  /** Goes on from a saved state. */
  restore(state: EarlyStoppingState): void {
    this.#state = { ...state };
  }
}

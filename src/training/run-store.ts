import type { PeftModel } from "../adapters/index.ts";
import type { TensorEntry } from "../checkpoint/index.ts";
import type { Tensor } from "../tensor/index.ts";
import type { MetricsWriter } from "./metrics.ts";
import type { TrainerState } from "./state.ts";

/** A saved run to go on with. */
export type SavedRun = {
  readonly state: TrainerState;
  readonly adapter: ReadonlyMap<string, TensorEntry>;
  readonly optimizer: ReadonlyMap<string, Tensor>;
  /** For messages. */
  readonly location: string;
};

/** Where a run keeps what must outlive it. */
export interface RunStore {
  /** As the user spelled it. */
  readonly location: string;
  /**
   * Makes sure that something can be written, before anything has been computed.
   * @param resume the checkpoint to go on with, or true for the latest one there is.
   * @param overwrite whether an unfinished run that is there may be replaced.
   * @throws TrainingError if there is nothing to resume, or an unfinished run in the way.
   */
  open(options: { resume: boolean | string; overwrite: boolean }): Promise<SavedRun | undefined>;
  metrics(resumeStep: number | undefined): Promise<MetricsWriter[]>;
  /** Saves everything needed to go on; returns where. `keep` limits how many checkpoints stay. */
  saveCheckpoint(
    peft: PeftModel,
    optimizer: ReadonlyMap<string, Tensor>,
    state: TrainerState,
    keep: number | undefined,
  ): Promise<string>;
  /** Tensors of an adapter saved earlier in this run. */
  readAdapter(checkpoint: string): Promise<ReadonlyMap<string, TensorEntry>>;
  /** Saves the trained adapter; returns its folder. */
  finish(peft: PeftModel, state: TrainerState): Promise<string>;
  /** After a failure: removes what this run made, unless there is a checkpoint worth keeping. */
  abandon(): Promise<void>;
}

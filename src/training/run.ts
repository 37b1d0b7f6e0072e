import type { LoadedBatch } from "../data/index.ts";
import { notify, type PackingReport, type StepEnd, type TrainBegin, type TrainEnd } from "./callbacks.ts";
import { optimizerStep } from "./optimizer-step.ts";
import { RunEvaluations } from "./run-evaluations.ts";
import { RunLog } from "./run-log.ts";
import { loadRun, type RunContext, type RunParts } from "./run-parts.ts";
import { epochsSeen, isDue } from "./run-state.ts";
import type { TrainerState } from "./state.ts";
import { stepBatches } from "./step-batches.ts";

export type TrainResult = Omit<TrainEnd, "step"> & {
  /** Optimizer steps of this run, in order. */
  readonly steps: readonly StepEnd[];
  /** Folder of the trained adapter; undefined without `outputDir`, or if training was aborted. */
  readonly adapter: string | undefined;
  /** Last checkpoint written, if any. */
  readonly checkpoint: string | undefined;
  /** With packing: what it has come to in the first epoch. */
  readonly packing?: PackingReport;
};

/** One call of `train`, from step to step. */
export class Run {
  private readonly context: RunContext;
  private readonly parts: RunParts;
  private readonly log: RunLog;
  private readonly evaluations: RunEvaluations;
  private readonly steps: StepEnd[] = [];
  private readonly begun: number;
  private readonly started = performance.now();
  private lastSaved: number | undefined;
  private done = false;
  private checkpoint: string | undefined;

  private constructor(context: RunContext, parts: RunParts, begun: number) {
    this.begun = begun;
    this.context = context;
    this.parts = parts;
    this.log = new RunLog(parts.state, parts.metrics);
    this.evaluations = new RunEvaluations(context, parts, this.log);
    this.lastSaved = context.saved && parts.state.step;
  }

  /** Loads everything; goes on where `saved` stopped. @throws TrainingError if it cannot. */
  static async begin(context: RunContext): Promise<Run> {
    const begun = performance.now();
    return new Run(context, await loadRun(context), begun);
  }

  async complete(): Promise<TrainResult> {
    const { state } = this;
    const reason = await this.loop().catch((error: unknown) => {
      const { signal } = this.context;
      if (signal?.aborted && error === signal.reason) return "aborted" as const;
      throw error;
    });
    if (reason !== "aborted") this.evaluations.restoreBest();
    const { model, store } = this.context;
    // An entry that is not due yet would be one too many once the run goes on.
    if (reason !== "aborted" || !store) await this.log.steps();
    if (reason === "aborted" && this.steps.length > 0 && this.lastSaved !== state.step) await this.save();
    const adapter = reason === "aborted" ? undefined : await store?.finish(model, state);
    this.done = reason !== "aborted";
    const loss = this.steps.reduce((sum, step) => sum + step.loss, 0) / this.steps.length;
    const seconds = (performance.now() - this.started) / 1000;
    const end: TrainEnd = {
      step: state.step,
      epoch: epochsSeen(state),
      reason,
      loss,
      seconds,
      ...(state.best && { best: state.best }),
    };
    await notify(this.context.callbacks, "onTrainEnd", end);
    const { step: _, ...rest } = end;
    const { packing } = this.parts;
    return { ...rest, steps: this.steps, adapter, checkpoint: this.checkpoint, ...(packing && { packing }) };
  }

  /** Frees the session and closes the metrics' files. */
  async close(): Promise<void> {
    const { step, prefixCache } = this.parts;
    await step.dispose();
    await this.evaluations.close();
    // What an interrupted run has kept serves it when it goes on.
    await prefixCache?.close({ remove: this.done && this.context.settings.prefixCacheDir === undefined });
    await this.log.close();
  }

  private get state(): TrainerState {
    return this.parts.state;
  }

  private async loop(): Promise<TrainEnd["reason"]> {
    const { context, evaluations, state } = this;
    const groups = stepBatches(context, this.parts.sampler, state, this.parts.step);
    try {
      // Graphs are loaded for what the first batch is like, before training is said to begin.
      const first = state.step < state.totalSteps ? await groups.next() : undefined;
      if (first && !first.done) await this.parts.step.prepare(first.value[0]!.parts[0]!);
      if (await notify(context.callbacks, "onTrainBegin", this.begin())) return "callback";
      if (context.saved) {
        // What the interrupted run had left to do at this step.
        const stop = evaluations.missing ? await this.atStepEnd() : evaluations.stop;
        if (stop) return stop;
      }
      for (let next = first; next && !next.done; next = await groups.next()) {
        const stop = await this.step(next.value);
        if (stop) return stop;
      }
      return "finished";
    } finally {
      await groups.return(undefined);
    }
  }

  private begin(): TrainBegin {
    const { step, totalSteps, totalEpochs } = this.state;
    const { packing, prefixCache, baseWeights, checkpointing } = this.parts;
    return {
      step,
      totalSteps,
      totalEpochs,
      examples: this.context.trainDataset.length,
      ...(packing && { packing }),
      ...(baseWeights && { baseWeights }),
      ...(prefixCache?.report && { prefixCache: prefixCache.report }),
      ...(checkpointing?.report && { gradientCheckpointing: checkpointing.report }),
      loadSeconds: (performance.now() - this.begun) / 1000,
      trainableParameters: this.context.model.parameterCounts().trainable,
    };
  }

  /** One optimizer step and what is due after it; says why to stop, if so. */
  private async step(batches: readonly LoadedBatch[]): Promise<TrainEnd["reason"] | undefined> {
    const { context, state } = this;
    if (context.signal?.aborted) return "aborted";
    const end = await optimizerStep(context, this.parts, batches, this.steps.at(-1)?.loss);
    this.steps.push(end);
    const asked = await notify(context.callbacks, "onStepEnd", end);
    if (state.step % context.settings.loggingSteps === 0) await this.log.steps();
    const stop = (await this.atStepEnd()) ?? (asked ? "callback" : undefined);
    return stop ?? (state.step >= state.totalSteps ? "finished" : undefined);
  }

  /** Evaluates and saves if it is time; says why to stop, if so. */
  private async atStepEnd(): Promise<TrainEnd["reason"] | undefined> {
    const { evaluations } = this;
    const { saveStrategy, saveSteps } = this.context.settings;
    let saving = isDue(this.state, saveStrategy, saveSteps);
    let stop: TrainEnd["reason"] | undefined;
    if (evaluations.due) {
      const { asked, best } = await evaluations.evaluate(saving);
      stop = asked ? "callback" : evaluations.stop;
      saving ||= best && evaluations.keepsBest;
    }
    if (saving && (await this.save())) stop ??= "callback";
    return stop;
  }

  private async save(): Promise<boolean> {
    const { store, model } = this.context;
    if (!store) return false;
    this.checkpoint = await store.saveCheckpoint(
      model,
      this.parts.optimizer.stateDict(),
      this.state,
      this.context.settings.saveTotalLimit,
    );
    this.lastSaved = this.state.step;
    return notify(this.context.callbacks, "onSave", { step: this.state.step, location: this.checkpoint });
  }
}

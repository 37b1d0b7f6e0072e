import type { Naming, PeftModel } from "../adapters/index.ts";
import type { Dataset } from "../data/index.ts";
import { DataError, TrainingError } from "../errors.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { TrainerCallback } from "./callbacks.ts";
import { checkedDataset } from "./checked-dataset.ts";
import { type EvaluationResult, evaluate } from "./evaluate.ts";
import type { MetricsWriter } from "./metrics.ts";
import { objectiveOf } from "./objective.ts";
import { resolveTrainingOptions, type TrainingOptions, type TrainingOptionsInput } from "./options.ts";
import { Run, type TrainResult } from "./run.ts";
import type { RunContext } from "./run-parts.ts";
import { epochsSeen } from "./run-state.ts";
import type { RunStore, SavedRun } from "./run-store.ts";

export type TrainerOptions = TrainingOptionsInput & {
  /** A model with an adapter that can be trained. */
  model: PeftModel<LanguageModel>;
  trainDataset: Dataset;
  /** Evaluated on while training; see `evalStrategy`. */
  evalDataset?: Dataset | undefined;
  /** Token to pad with; it has no influence on the result. Default: the model's, or 0. */
  padTokenId?: number | undefined;
  /** Where to compute. Default: a CPU engine of its own, disposed of at the end (Node). */
  engine?: Engine | undefined;
  callbacks?: readonly TrainerCallback[] | undefined;
  /** Besides the files in `outputDir`. */
  metrics?: readonly MetricsWriter[] | undefined;
  /** Ends training after the current step; what is done so far is saved as a checkpoint in `outputDir`. */
  signal?: AbortSignal | undefined;
  /** Go on with the latest checkpoint in `outputDir`, or with the one named. */
  resume?: boolean | string | undefined;
  /** Replace an unfinished run in `outputDir`. */
  overwrite?: boolean | undefined;
  /** Names in the trained adapter, "remote-code" for those of Florence-2's older class; checkpoints have the native ones. Default "native". */
  naming?: Naming | undefined;
};

/**
 * Fine-tunes an adapter.
 *
 * One optimizer step reads `gradientAccumulationSteps` batches; its loss is the mean over all their label tokens, and the
 * gradients are that mean's. Everything random follows from `seed`, epoch and step, so a resumed run gives exactly what an
 * uninterrupted one would have.
 * Source: transformers trainer.py.
 */
export class Trainer {
  private readonly settings: TrainingOptions;
  private readonly given: Omit<RunContext, "settings" | "engine" | "store" | "saved">;
  private readonly engine: Engine | undefined;
  private readonly resume: boolean | string;
  private readonly overwrite: boolean;
  private readonly naming: Naming;

  /**
   * @throws TrainingError listing every option that is wrong or contradicts another, and if there is nothing to train.
   * @throws AdapterError if the adapter cannot be said in the names of `naming`.
   */
  constructor(options: TrainerOptions) {
    const {
      model,
      trainDataset,
      evalDataset,
      padTokenId,
      engine,
      callbacks,
      metrics,
      signal,
      resume,
      overwrite,
      naming = "native",
      ...rest
    } = options;
    this.settings = resolveTrainingOptions(rest, { hasEvalData: evalDataset !== undefined });
    if (this.settings.packing && !objectiveOf(model.baseModel).packs)
      throw new TrainingError(
        `${model.baseModel.origin.name}: packing is for causal language models; a ${model.baseModel.modelType} is an encoder–decoder, whose examples need a row each. Leave packing out, or group examples by length.`,
        { code: "cannot-pack", details: { modelType: model.baseModel.modelType } },
      );
    this.given = {
      model,
      trainDataset: checkedDataset(trainDataset, {
        model: model.baseModel,
        maxLength: this.settings.maxLength,
      }),
      evalDataset,
      padTokenId: padTokenId ?? model.baseModel.padTokenId,
      callbacks: callbacks ?? [],
      metrics: metrics ?? [],
      signal,
    };
    this.engine = engine;
    this.resume = resume ?? false;
    this.overwrite = overwrite ?? false;
    this.naming = naming;
    if (naming !== "native") model.renamed(naming);
    if (model.trainableParameters().size === 0)
      throw new TrainingError(
        "The model has no trainable parameters. Load the adapter with isTrainable, or add one with getPeftModel.",
        {
          code: "nothing-to-train",
        },
      );
    if (trainDataset.length === 0)
      throw new DataError(`${trainDataset.name}: there are no examples to train on.`, {
        code: "no-examples",
        details: { dataset: trainDataset.name },
      });
  }

  /**
   * Trains, and saves the adapter in `outputDir`.
   * @throws TrainingError if the loss is not finite, or something cannot be saved. What was made in `outputDir` by a run
   * that fails before its first checkpoint is removed.
   */
  async train(): Promise<TrainResult> {
    const store = await this.openStore();
    const saved = await store?.open({ resume: this.resume, overwrite: this.overwrite });
    const { signal } = this.given;
    try {
      const result = await this.withEngine(async (engine) => {
        const run = await Run.begin({ ...this.given, settings: this.settings, engine, store, saved });
        try {
          return await run.complete();
        } finally {
          await run.close();
        }
      });
      if (result.reason === "aborted") await store?.abandon(); // keeps what has been saved
      return result;
    } catch (error) {
      await store?.abandon();
      if (signal?.aborted && error === signal.reason) return abortedEarly(saved);
      throw error;
    }
  }

  /** Mean loss over a dataset, by default `evalDataset`, at the current weights. */
  async evaluate(dataset: Dataset | undefined = this.given.evalDataset): Promise<EvaluationResult> {
    if (!dataset)
      throw new TrainingError("There is no evaluation data: pass evalDataset, or a dataset.", {
        code: "no-evaluation-data",
      });
    const { model, padTokenId, signal } = this.given;
    const { paddingSide, evalBatchSize: batchSize, maxLength } = this.settings;
    return this.withEngine((engine) =>
      evaluate(model.baseModel, dataset, { engine, padTokenId, paddingSide, batchSize, maxLength, signal }),
    );
  }

  /** Computes on the given engine, or on one made for this. */
  private async withEngine<T>(compute: (engine: Engine) => Promise<T>): Promise<T> {
    if (this.engine) return compute(this.engine);
    const { createEngine } = await import("../runtime/node.ts");
    const engine = await createEngine();
    try {
      return await compute(engine);
    } finally {
      await engine.dispose();
    }
  }

  private async openStore(): Promise<RunStore | undefined> {
    const { outputDir } = this.settings;
    if (outputDir === undefined) {
      if (this.resume)
        throw new TrainingError("There is nothing to resume from without outputDir.", {
          code: "nothing-to-resume",
        });
      return undefined;
    }
    const { RunFolder } = await import("./run-folder/node.ts");
    return new RunFolder(outputDir, { naming: this.naming });
  }
}

/** The result of a run that was aborted while it was loading. */
const abortedEarly = (saved: SavedRun | undefined): TrainResult => ({
  epoch: saved ? epochsSeen(saved.state) : 0,
  reason: "aborted",
  loss: Number.NaN,
  seconds: 0,
  steps: [],
  adapter: undefined,
  checkpoint: undefined,
});

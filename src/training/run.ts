import { loadAdapterTensors, type PeftModel } from "../adapters/index.ts";
import { type Dataset, type LoadedBatch, loadBatches, type Sampler } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { mixSeeds } from "../tensor/random.ts";
import { quantizedBase } from "./base-weights.ts";
import {
  type BaseWeightsReport,
  type Evaluation,
  notify,
  type PackingReport,
  type StepEnd,
  type TrainBegin,
  type TrainEnd,
  type TrainerCallback,
} from "./callbacks.ts";
import { checkpointName } from "./checkpoints.ts";
import { clipGradNorm } from "./clip-grad-norm.ts";
import { EarlyStopping } from "./early-stopping.ts";
import { evaluate } from "./evaluate.ts";
import type { MetricsWriter } from "./metrics.ts";
import { objectiveOf } from "./objective.ts";
import { AdamW } from "./optimizers.ts";
import type { TrainingOptions } from "./options.ts";
import type { PrefixCache } from "./prefix-cache/index.ts";
import { diverged, withoutLabels } from "./run-errors.ts";
import { prefixCacheOf } from "./run-prefix-cache.ts";
import { initialState, readWeights, trainedOnly, withStep } from "./run-state.ts";
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

/** What a run works with from its first step to its last. */
type Parts = {
  readonly step: TrainingStep;
  readonly prefixCache: PrefixCache | undefined;
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

/** One call of `train`: the state that changes from step to step. */
export class Run {
  private readonly context: RunContext;
  private readonly parts: Parts;
  private readonly earlyStopping: EarlyStopping | undefined;
  private readonly steps: StepEnd[] = [];
  private readonly started = performance.now();
  private bestWeights: ReadonlyMap<string, Float32Array> | undefined;
  private lastSaved: number | undefined;
  private done = false;
  private checkpoint: string | undefined;

  private constructor(context: RunContext, parts: Parts) {
    this.context = context;
    this.parts = parts;
    this.bestWeights = parts.bestWeights;
    const { earlyStoppingPatience: patience, earlyStoppingThreshold: minDelta } = context.settings;
    this.earlyStopping = patience === undefined ? undefined : new EarlyStopping({ patience, minDelta });
    this.earlyStopping?.restore({
      best: parts.state.best?.loss,
      waited: parts.state.evaluationsWithoutImprovement,
    });
    this.lastSaved = context.saved && parts.state.step;
  }

  /** Loads everything; goes on where `saved` stopped. @throws TrainingError if it cannot. */
  static async begin(context: RunContext): Promise<Run> {
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
    const baseWeights = await quantizedBase(context, sampler);
    const prefixCache = prefixCacheOf(context, state);
    const step = await TrainingStep.create(peft.baseModel, engine, { ...settings, prefixCache });
    const files = (await store?.metrics(saved && state.step)) ?? [];
    return new Run(context, {
      step,
      prefixCache,
      baseWeights,
      optimizer,
      weights,
      sampler,
      packing,
      metrics: [...files, ...context.metrics],
      schedule,
      state,
      bestWeights,
    });
  }

  async complete(): Promise<TrainResult> {
    const { state } = this;
    const reason = await this.loop().catch((error: unknown) => {
      const { signal } = this.context;
      if (signal?.aborted && error === signal.reason) return "aborted" as const;
      throw error;
    });
    if (this.bestWeights && reason !== "aborted")
      for (const [name, values] of this.bestWeights) this.parts.weights.get(name)!.data.set(values);
    const { model, store } = this.context;
    // An entry that is not due yet would be one too many once the run goes on.
    if (reason !== "aborted" || !store) await this.log();
    if (reason === "aborted" && this.steps.length > 0 && this.lastSaved !== state.step) await this.save();
    const adapter = reason === "aborted" ? undefined : await store?.finish(model, state);
    this.done = reason !== "aborted";
    const loss = this.steps.reduce((sum, step) => sum + step.loss, 0) / this.steps.length;
    const seconds = (performance.now() - this.started) / 1000;
    const end: TrainEnd = {
      step: state.step,
      epoch: this.epoch(),
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
    // What an interrupted run has kept serves it when it goes on.
    await prefixCache?.close({ remove: this.done && this.context.settings.prefixCacheDir === undefined });
    for (const writer of this.parts.metrics) await writer.close();
  }

  private get state(): TrainerState {
    return this.parts.state;
  }

  /** Share of the data seen, in epochs. */
  private epoch(): number {
    return this.state.epoch + this.state.batchInEpoch / this.state.batchesPerEpoch;
  }

  private async loop(): Promise<TrainEnd["reason"]> {
    const groups = this.groups();
    try {
      // Graphs are loaded for what the first batch is like, before training is said to begin.
      const first = this.state.step < this.state.totalSteps ? await groups.next() : undefined;
      if (first && !first.done) await this.parts.step.prepare(first.value[0]!.parts[0]!);
      if (await notify(this.context.callbacks, "onTrainBegin", this.begin())) return "callback";
      if (this.context.saved) {
        // What the interrupted run had left to do at this step.
        const stop = this.evaluationMissing() ? await this.atStepEnd() : this.earlyStop();
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
    const { packing, prefixCache, baseWeights } = this.parts;
    return {
      step,
      totalSteps,
      totalEpochs,
      examples: this.context.trainDataset.length,
      ...(packing && { packing }),
      ...(baseWeights && { baseWeights }),
      ...(prefixCache?.report && { prefixCache: prefixCache.report }),
      trainableParameters: this.context.model.parameterCounts().trainable,
    };
  }

  /** One optimizer step and what is due after it; says why to stop, if so. */
  private async step(batches: readonly LoadedBatch[]): Promise<TrainEnd["reason"] | undefined> {
    if (this.context.signal?.aborted) return "aborted";
    const asked = await notify(this.context.callbacks, "onStepEnd", await this.optimizerStep(batches));
    if (this.state.step % this.context.settings.loggingSteps === 0) await this.log();
    const stop = (await this.atStepEnd()) ?? (asked ? "callback" : undefined);
    return stop ?? (this.state.step >= this.state.totalSteps ? "finished" : undefined);
  }

  /** Evaluates and saves if it is time; says why to stop, if so. */
  private async atStepEnd(): Promise<TrainEnd["reason"] | undefined> {
    const { saveStrategy, saveSteps } = this.context.settings;
    let saving = this.isDue(saveStrategy, saveSteps);
    let stop: TrainEnd["reason"] | undefined;
    if (this.evaluationDue()) {
      const { asked, best } = await this.evaluateNow(saving);
      stop = asked ? "callback" : this.earlyStop();
      saving ||= best && this.keepsBest;
    }
    if (saving && (await this.save())) stop ??= "callback";
    return stop;
  }

  private isDue(strategy: "no" | "steps" | "epoch", every: number | undefined): boolean {
    const { step, totalSteps, batchInEpoch } = this.state;
    if (strategy === "epoch") return batchInEpoch === 0 || step >= totalSteps;
    return strategy === "steps" && step % every! === 0;
  }

  private evaluationDue(): boolean {
    const { evalStrategy, evalSteps } = this.context.settings;
    return this.isDue(evalStrategy, evalSteps);
  }

  /** Whether the run was interrupted between a step and the evaluation after it. */
  private evaluationMissing(): boolean {
    const { step, history } = this.state;
    return this.evaluationDue() && !history.some((entry) => entry.step === step && "eval_loss" in entry);
  }

  private earlyStop(): "early-stopping" | undefined {
    const { earlyStopping } = this;
    return earlyStopping && earlyStopping.state.waited >= earlyStopping.patience
      ? "early-stopping"
      : undefined;
  }

  /** Whether the best weights need a checkpoint, so that a run that goes on later can still end with them. */
  private get keepsBest(): boolean {
    return this.context.settings.loadBestModelAtEnd && this.context.store !== undefined;
  }

  /** The batches of one optimizer step after another, from where the state is; no step reaches into the next epoch. */
  private async *groups(): AsyncGenerator<LoadedBatch[], void, undefined> {
    const {
      state,
      context: { settings },
    } = this;
    const { trainDataset: dataset, padTokenId, signal } = this.context;
    const { labels } = objectiveOf(this.context.model.baseModel);
    const { paddingSide: side, padToMultipleOf, gradientAccumulationSteps } = settings;
    const loading = {
      ...{ padTokenId, side, padToMultipleOf, labels },
      depth: gradientAccumulationSteps + 1, // the whole next step, while this one is computed
      ...(signal && { signal }),
    };
    for (;;) {
      let group: LoadedBatch[] = [];
      let left = state.batchesPerEpoch - state.batchInEpoch;
      const indices = this.parts.sampler.atEpoch(state.epoch).batches(state.batchInEpoch);
      for await (const batch of loadBatches(dataset, indices, loading)) {
        group.push(batch);
        left--;
        if (group.length < gradientAccumulationSteps && left > 0) continue;
        yield group;
        group = [];
      }
    }
  }

  /** Forward, backward and update over one step's batches. */
  private async optimizerStep(batches: readonly LoadedBatch[]): Promise<StepEnd> {
    const {
      state,
      context: { settings },
    } = this;
    await this.parts.step.prepare(batches[0]!.parts[0]!);
    const started = performance.now();
    const labelTokens = batches.reduce((sum, batch) => sum + batch.labelTokens, 0);
    if (labelTokens === 0) throw withoutLabels(this.context.trainDataset.name, state.step + 1, batches);
    let loss = 0;
    const gradients = new Map<string, Tensor<"float32">>();
    for (const [micro, { parts }] of batches.entries())
      for (const [index, part] of parts.entries()) {
        if (part.labelTokens === 0) continue;
        const seed = mixSeeds([settings.seed, state.step, micro, ...(index > 0 ? [index] : [])]);
        const result = await this.parts.step.run(part, { lossScale: 1 / labelTokens, seed });
        loss += result.loss;
        for (const [name, values] of result.gradients)
          accumulate(gradients, name, values, this.parts.weights);
      }
    const gradNorm = clipGradNorm(gradients, settings.maxGradNorm);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
      throw diverged({
        step: state.step + 1,
        loss,
        gradNorm,
        before: this.steps.at(-1)?.loss,
        learningRate: settings.learningRate,
        batches,
      });
    const learningRate = this.parts.schedule(state.step);
    this.parts.optimizer.learningRate = learningRate;
    this.parts.optimizer.step(gradients);

    const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
    state.step++;
    state.tokensSeen += tokens;
    state.batchInEpoch += batches.length;
    if (state.batchInEpoch === state.batchesPerEpoch) {
      const epoch = state.epoch + 1;
      const { batchesPerEpoch } = this.parts.sampler.atEpoch(epoch);
      await this.parts.prefixCache?.epochEnded();
      Object.assign(state, { epoch, batchInEpoch: 0, batchesPerEpoch });
    }
    const seconds = (performance.now() - started) / 1000;
    const end: StepEnd = {
      step: state.step,
      epoch: this.epoch(),
      loss,
      gradNorm,
      learningRate,
      tokens,
      seconds,
      tokensPerSecond: tokens / seconds,
    };
    this.steps.push(end);
    state.unlogged = withStep(state.unlogged, end);
    return end;
  }

  /** Evaluates; keeps the weights if they are the best so far and will be wanted at the end. */
  private async evaluateNow(saving: boolean): Promise<{ asked: boolean; best: boolean }> {
    const {
      state,
      context: { settings },
    } = this;
    const { engine, evalDataset, model, padTokenId, signal } = this.context;
    const { evalBatchSize: batchSize, paddingSide, maxLength } = settings;
    const { prefixCache } = this.parts;
    const options = { engine, padTokenId, paddingSide, batchSize, maxLength, signal, prefixCache };
    const result = await evaluate(model.baseModel, evalDataset!, options);
    const best = result.loss < (state.best?.loss ?? Infinity);
    if (best) {
      state.best = {
        loss: result.loss,
        step: state.step,
        ...((saving || this.keepsBest) && { checkpoint: checkpointName(state.step) }),
      };
      if (settings.loadBestModelAtEnd)
        this.bestWeights = new Map([...this.parts.weights].map(([name, { data }]) => [name, data.slice()]));
    }
    this.earlyStopping?.update(result.loss);
    state.evaluationsWithoutImprovement = this.earlyStopping?.state.waited ?? 0;
    await this.record({ eval_loss: result.loss, eval_perplexity: result.perplexity });
    const event: Evaluation = { step: state.step, epoch: this.epoch(), ...result, best };
    return { asked: await notify(this.context.callbacks, "onEvaluate", event), best };
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

  /** Writes the mean of what has happened since the last entry. */
  private async log(): Promise<void> {
    const { unlogged } = this.state;
    if (!unlogged) return;
    delete this.state.unlogged;
    await this.record({
      loss: unlogged.loss / unlogged.steps,
      grad_norm: unlogged.gradNorm,
      learning_rate: unlogged.learningRate,
      tokens_per_second: unlogged.tokens / unlogged.seconds,
    });
  }

  private async record(scalars: Record<string, number>): Promise<void> {
    const { step } = this.state;
    this.state.history.push({ step, epoch: this.epoch(), ...scalars });
    await Promise.all(
      this.parts.metrics.map((writer) => writer.write(step, { epoch: this.epoch(), ...scalars })),
    );
  }
}

/** Adds a micro-batch's gradient; the first one is taken as it is. */
function accumulate(
  sums: Map<string, Tensor<"float32">>,
  name: string,
  values: Float32Array,
  weights: ReadonlyMap<string, Tensor<"float32">>,
): void {
  const sum = sums.get(name);
  if (!sum) return void sums.set(name, tensor("float32", weights.get(name)!.shape, values));
  for (let i = 0; i < values.length; i++) sum.data[i]! += values[i]!;
}

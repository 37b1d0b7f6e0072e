import { loadAdapterTensors, type PeftModel } from "../adapters/index.ts";
import { BatchSampler, type Dataset, exampleLengths, type LoadedBatch, loadBatches } from "../data/index.ts";
import { DataError, TrainingError } from "../errors.ts";
import type { CausalLM } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { mixSeeds } from "../tensor/random.ts";
import { type Evaluation, notify, type StepEnd, type TrainEnd, type TrainerCallback } from "./callbacks.ts";
import { checkpointName } from "./checkpoints.ts";
import { clipGradNorm } from "./clip-grad-norm.ts";
import { EarlyStopping } from "./early-stopping.ts";
import { evaluate } from "./evaluate.ts";
import type { MetricsWriter } from "./metrics.ts";
import { AdamW } from "./optimizers.ts";
import type { TrainingOptions } from "./options.ts";
import { initialState, readWeights } from "./run-state.ts";
import type { RunStore, SavedRun } from "./run-store.ts";
import { getScheduler, getWarmupSteps, type Schedule } from "./schedules.ts";
import { assertResumable, type TrainerState } from "./state.ts";
import { TrainingStep } from "./step.ts";

/** What a run is given. */
export type RunContext = {
  readonly model: PeftModel<CausalLM>;
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
};

/** What a run works with from its first step to its last. */
type Parts = {
  readonly step: TrainingStep;
  readonly optimizer: AdamW;
  readonly weights: ReadonlyMap<string, Tensor<"float32">>;
  readonly sampler: BatchSampler;
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
  private unlogged: StepEnd[] = [];
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
  }

  /** Loads everything; goes on where `saved` stopped. @throws TrainingError if it cannot. */
  static async begin(context: RunContext): Promise<Run> {
    const { model: peft, settings, engine, store, saved, trainDataset, signal } = context;
    const { batchSize, shuffle, seed, groupByLength } = settings;
    const lengths = groupByLength
      ? await exampleLengths(trainDataset, { ...(signal && { signal }) })
      : undefined;
    const sampler = new BatchSampler({
      length: trainDataset.length,
      batchSize,
      shuffle,
      seed,
      ...(lengths && { lengths }),
    });
    const state = initialState(context, sampler);
    if (saved) {
      assertResumable(saved.state.fingerprint, state.fingerprint);
      await loadAdapterTensors(peft, saved.adapter, saved.location);
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
    const step = await TrainingStep.create(peft.baseModel, engine);
    const files = (await store?.metrics(saved && state.step)) ?? [];
    const bestWeights =
      settings.loadBestModelAtEnd && state.best?.checkpoint !== undefined && store
        ? await readWeights(await store.readAdapter(state.best.checkpoint), weights)
        : undefined;
    return new Run(context, {
      step,
      optimizer,
      weights,
      sampler,
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
    await this.log();
    const { model, store } = this.context;
    if (reason === "aborted" && this.steps.length > 0) await this.save();
    const adapter = reason === "aborted" ? undefined : await store?.finish(model, state);
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
    return { ...rest, steps: this.steps, adapter, checkpoint: this.checkpoint };
  }

  /** Frees the session and closes the metrics' files. */
  async close(): Promise<void> {
    await this.parts.step.dispose();
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
    const {
      state,
      context: { settings },
    } = this;
    const { totalSteps, totalEpochs } = state;
    const begin = {
      step: state.step,
      totalSteps,
      totalEpochs,
      examples: this.context.trainDataset.length,
      trainableParameters: this.context.model.parameterCounts().trainable,
    };
    if (await notify(this.context.callbacks, "onTrainBegin", begin)) return "callback";
    for await (const batches of this.groups()) {
      if (this.context.signal?.aborted) return "aborted";
      let stop: TrainEnd["reason"] | undefined;
      if (await notify(this.context.callbacks, "onStepEnd", await this.optimizerStep(batches)))
        stop = "callback";
      const endOfEpoch = state.batchInEpoch === 0;
      const due = (strategy: string, every: number | undefined): boolean =>
        strategy === "epoch"
          ? endOfEpoch || state.step === totalSteps
          : strategy === "steps" && state.step % every! === 0;
      if (state.step % settings.loggingSteps === 0) await this.log();
      if (due(settings.evalStrategy, settings.evalSteps))
        stop = (await this.evaluateNow(due(settings.saveStrategy, settings.saveSteps))) ?? stop;
      if (due(settings.saveStrategy, settings.saveSteps) && (await this.save())) stop ??= "callback";
      if (stop) return stop;
      if (state.step === totalSteps) return "finished";
    }
    return "finished";
  }

  /** The batches of one optimizer step after another, from where the state is; no step reaches into the next epoch. */
  private async *groups(): AsyncGenerator<LoadedBatch[]> {
    const {
      state,
      context: { settings },
    } = this;
    const { trainDataset: dataset, padTokenId, signal } = this.context;
    const collating = { padTokenId, ...(signal && { signal }) };
    for (;;) {
      let group: LoadedBatch[] = [];
      let left = state.batchesPerEpoch - state.batchInEpoch;
      const indices = this.parts.sampler.atEpoch(state.epoch).batches(state.batchInEpoch);
      for await (const batch of loadBatches(dataset, indices, collating)) {
        group.push(batch);
        left--;
        if (group.length < settings.gradientAccumulationSteps && left > 0) continue;
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
    const started = performance.now();
    const labelTokens = batches.reduce((sum, batch) => sum + batch.labelTokens, 0);
    if (labelTokens === 0) throw this.withoutLabels(batches);
    let loss = 0;
    const gradients = new Map<string, Tensor<"float32">>();
    for (const [micro, batch] of batches.entries()) {
      if (batch.labelTokens === 0) continue;
      const seed = mixSeeds([settings.seed, state.step, micro]);
      const result = await this.parts.step.run(batch, { lossScale: 1 / labelTokens, seed });
      loss += result.loss;
      for (const [name, values] of result.gradients) accumulate(gradients, name, values, this.parts.weights);
    }
    const gradNorm = clipGradNorm(gradients, settings.maxGradNorm);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) throw this.diverged(loss, gradNorm, batches);
    const learningRate = this.parts.schedule(state.step);
    this.parts.optimizer.learningRate = learningRate;
    this.parts.optimizer.step(gradients);

    const tokens = batches.reduce((sum, batch) => sum + batch.tokens, 0);
    state.step++;
    state.tokensSeen += tokens;
    state.batchInEpoch += batches.length;
    if (state.batchInEpoch === state.batchesPerEpoch)
      Object.assign(state, { epoch: state.epoch + 1, batchInEpoch: 0 });
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
    this.unlogged.push(end);
    return end;
  }

  /** Evaluates; keeps the weights if they are the best so far and will be wanted at the end. */
  private async evaluateNow(saving: boolean): Promise<TrainEnd["reason"] | undefined> {
    const {
      state,
      context: { settings },
    } = this;
    const { engine, evalDataset, model, padTokenId, signal } = this.context;
    const options = { engine, padTokenId, batchSize: settings.evalBatchSize, signal };
    const result = await evaluate(model.baseModel, evalDataset!, options);
    const best = result.loss < (state.best?.loss ?? Infinity);
    if (best) {
      state.best = {
        loss: result.loss,
        step: state.step,
        ...(saving && { checkpoint: checkpointName(state.step) }),
      };
      if (settings.loadBestModelAtEnd)
        this.bestWeights = new Map([...this.parts.weights].map(([name, { data }]) => [name, data.slice()]));
    }
    const early = this.earlyStopping?.update(result.loss);
    state.evaluationsWithoutImprovement = this.earlyStopping?.state.waited ?? 0;
    await this.record({ eval_loss: result.loss, eval_perplexity: result.perplexity });
    const event: Evaluation = { step: state.step, epoch: this.epoch(), ...result, best };
    if (await notify(this.context.callbacks, "onEvaluate", event)) return "callback";
    return early?.stop ? "early-stopping" : undefined;
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
    return notify(this.context.callbacks, "onSave", { step: this.state.step, location: this.checkpoint });
  }

  /** Writes the mean of what has happened since the last entry. */
  private async log(): Promise<void> {
    const entries = this.unlogged.splice(0);
    const last = entries.at(-1);
    if (!last) return;
    const total = (pick: (step: StepEnd) => number): number =>
      entries.reduce((sum, step) => sum + pick(step), 0);
    await this.record({
      loss: total(({ loss }) => loss) / entries.length,
      grad_norm: last.gradNorm,
      learning_rate: last.learningRate,
      tokens_per_second: total(({ tokens }) => tokens) / total(({ seconds }) => seconds),
    });
  }

  private async record(scalars: Record<string, number>): Promise<void> {
    const { step } = this.state;
    this.state.history.push({ step, epoch: this.epoch(), ...scalars });
    await Promise.all(
      this.parts.metrics.map((writer) => writer.write(step, { epoch: this.epoch(), ...scalars })),
    );
  }

  private diverged(loss: number, gradNorm: number, batches: readonly LoadedBatch[]): TrainingError {
    const what = Number.isFinite(loss) ? `gradient norm is ${gradNorm}` : `loss is ${loss}`;
    const before = this.steps.at(-1);
    return new TrainingError(
      `The ${what} at step ${this.state.step + 1}${before ? ` (the loss was ${before.loss.toFixed(4)} a step before)` : ""}. Lower the learning rate (now ${this.context.settings.learningRate}), clip gradients (maxGradNorm), or look for broken weights or data.`,
      {
        code: "diverged",
        details: {
          step: this.state.step + 1,
          loss,
          gradNorm,
          examples: batches.flatMap(({ indices }) => indices),
        },
      },
    );
  }

  private withoutLabels(batches: readonly LoadedBatch[]): DataError {
    const examples = batches.flatMap(({ indices }) => indices.map((index) => index + 1));
    return new DataError(
      `${this.context.trainDataset.name}: step ${this.state.step + 1} has nothing to learn: no token of example${examples.length > 1 ? "s" : ""} ${examples.slice(0, 8).join(", ")} has a label. Remove them, raise maxLength, or use larger batches.`,
      { code: "no-labels", details: { dataset: this.context.trainDataset.name, examples } },
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

import { type Evaluation, notify } from "./callbacks.ts";
import { checkpointName } from "./checkpoints.ts";
import { EarlyStopping } from "./early-stopping.ts";
import { evaluate } from "./evaluate.ts";
import type { RunLog } from "./run-log.ts";
import type { RunContext, RunParts } from "./run-parts.ts";
import { epochsSeen, isDue } from "./run-state.ts";
import { EvaluationStep } from "./step.ts";

/** A run's evaluations: which weights were the best, and whether it is time to stop. */
export class RunEvaluations {
  private readonly context: RunContext;
  private readonly parts: RunParts;
  private readonly log: RunLog;
  private readonly earlyStopping: EarlyStopping | undefined;
  private step: EvaluationStep | undefined;
  private bestWeights: ReadonlyMap<string, Float32Array> | undefined;

  constructor(context: RunContext, parts: RunParts, log: RunLog) {
    this.context = context;
    this.parts = parts;
    this.log = log;
    this.bestWeights = parts.bestWeights;
    const { earlyStoppingPatience: patience, earlyStoppingThreshold: minDelta } = context.settings;
    this.earlyStopping = patience === undefined ? undefined : new EarlyStopping({ patience, minDelta });
    this.earlyStopping?.restore({
      best: parts.state.best?.loss,
      waited: parts.state.evaluationsWithoutImprovement,
    });
  }

  get due(): boolean {
    const { evalStrategy, evalSteps } = this.context.settings;
    return isDue(this.parts.state, evalStrategy, evalSteps);
  }

  /** Whether the run was interrupted between a step and the evaluation after it. */
  get missing(): boolean {
    const { step, history } = this.parts.state;
    return this.due && !history.some((entry) => entry.step === step && "eval_loss" in entry);
  }

  /** Why to stop, if it is time. */
  get stop(): "early-stopping" | undefined {
    const { earlyStopping } = this;
    return earlyStopping && earlyStopping.state.waited >= earlyStopping.patience
      ? "early-stopping"
      : undefined;
  }

  /** Whether the best weights need a checkpoint, so that a run that goes on later can still end with them. */
  get keepsBest(): boolean {
    return this.context.settings.loadBestModelAtEnd && this.context.store !== undefined;
  }

  /** Evaluates; keeps the weights if they are the best so far and will be wanted at the end. */
  async evaluate(saving: boolean): Promise<{ asked: boolean; best: boolean }> {
    const { engine, evalDataset, model, padTokenId, signal, settings, callbacks } = this.context;
    const { prefixCache, state, weights } = this.parts;
    const { evalBatchSize: batchSize, paddingSide, maxLength } = settings;
    this.step ??= new EvaluationStep(model.baseModel, engine, { prefixCache });
    const options = { engine, padTokenId, paddingSide, batchSize, maxLength, signal, step: this.step };
    const result = await evaluate(model.baseModel, evalDataset!, options);
    const best = result.loss < (state.best?.loss ?? Infinity);
    if (best) {
      state.best = {
        loss: result.loss,
        step: state.step,
        ...((saving || this.keepsBest) && { checkpoint: checkpointName(state.step) }),
      };
      if (settings.loadBestModelAtEnd)
        this.bestWeights = new Map([...weights].map(([name, { data }]) => [name, data.slice()]));
    }
    this.earlyStopping?.update(result.loss);
    state.evaluationsWithoutImprovement = this.earlyStopping?.state.waited ?? 0;
    await this.log.record({ eval_loss: result.loss, eval_perplexity: result.perplexity });
    const event: Evaluation = { step: state.step, epoch: epochsSeen(state), ...result, best };
    return { asked: await notify(callbacks, "onEvaluate", event), best };
  }

  async close(): Promise<void> {
    await this.step?.dispose();
  }

  /** Puts the best weights back, if they were kept. */
  restoreBest(): void {
    for (const [name, values] of this.bestWeights ?? []) this.parts.weights.get(name)!.data.set(values);
  }
}

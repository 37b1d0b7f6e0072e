import type { Batch } from "../data/index.ts";
import type { CausalLM } from "../models/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { Engine, Session } from "../runtime/index.ts";
import { batchFeeds, noiseFeed } from "./feeds.ts";
import { gradientName, lossProgram, trainingProgram } from "./program.ts";

export type StepResult = {
  /** scale · Σ of the label tokens' losses. */
  readonly loss: number;
  /** By parameter name. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
};

/** The forward and backward pass of a model, loaded into an engine. */
export class TrainingStep {
  /** What it has gradients for, in the order of the module tree. */
  readonly trained: readonly Parameter[];
  private readonly model: CausalLM;
  private readonly session: Session;

  private constructor(model: CausalLM, session: Session, trained: readonly Parameter[]) {
    this.model = model;
    this.session = session;
    this.trained = trained;
  }

  /** Builds the graph for whatever the model trains, and loads it. */
  static async create(model: CausalLM, engine: Engine): Promise<TrainingStep> {
    const { outputs, trained } = trainingProgram(model);
    return new TrainingStep(model, await engine.createSession(outputs), trained);
  }

  /** Loss and gradients of a batch at the parameters' current values. `seed` decides the dropout masks. */
  async run(batch: Batch, { lossScale, seed }: { lossScale: number; seed: number }): Promise<StepResult> {
    const { outputs } = await this.session.run({
      ...(await this.model.parameterFeeds()),
      ...batchFeeds(this.model, batch, lossScale),
      ...noiseFeed(batch, seed),
    });
    const gradients = new Map<string, Float32Array>();
    for (const parameter of this.trained)
      gradients.set(parameter.name, outputs[gradientName(parameter)]!.data as Float32Array);
    return { loss: (outputs["loss"]!.data as Float32Array)[0]!, gradients };
  }

  dispose(): Promise<void> {
    return this.session.dispose();
  }
}

/** The forward pass alone, without dropout, for evaluation. */
export class EvaluationStep {
  private readonly model: CausalLM;
  private readonly session: Session;

  private constructor(model: CausalLM, session: Session) {
    this.model = model;
    this.session = session;
  }

  static async create(model: CausalLM, engine: Engine): Promise<EvaluationStep> {
    return new EvaluationStep(model, await engine.createSession(lossProgram(model)));
  }

  /** Sum of the label tokens' losses, in nats. */
  async run(batch: Batch): Promise<number> {
    if (batch.labelTokens === 0) return 0;
    const { outputs } = await this.session.run({
      ...(await this.model.parameterFeeds()),
      ...batchFeeds(this.model, batch, 1),
    });
    return (outputs["loss"]!.data as Float32Array)[0]!;
  }

  dispose(): Promise<void> {
    return this.session.dispose();
  }
}

import type { Batch } from "../data/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { Engine, Session } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { type Objective, objectiveOf } from "./objective.ts";
import { gradientName, trainedParameters, trainingProgram } from "./program.ts";
import { type GraphKind, Sessions } from "./sessions.ts";

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
  private readonly model: LanguageModel;
  private readonly modelDropout: boolean;
  private readonly objective: Objective;
  private readonly sessions: Sessions;

  private constructor(model: LanguageModel, engine: Engine, modelDropout: boolean) {
    this.model = model;
    this.modelDropout = modelDropout;
    this.objective = objectiveOf(model);
    this.trained = trainedParameters(model);
    this.sessions = new Sessions(engine);
  }

  /** Builds the graph for whatever the model trains, and loads it; the graph of a model that reads pictures with the first batch. */
  static async create(
    model: LanguageModel,
    engine: Engine,
    { modelDropout = false, packing = false }: { modelDropout?: boolean; packing?: boolean } = {},
  ): Promise<TrainingStep> {
    const step = new TrainingStep(model, engine, modelDropout);
    if (!step.objective.readsPictures) await step.session({ packed: packing });
    return step;
  }

  /** Loads what a batch needs; `run` does so too. */
  async prepare(batch: Batch): Promise<void> {
    await this.session(kindOf(batch, this.objective));
  }

  /** Loss and gradients of a batch at the parameters' current values. `seed` decides the dropout masks. */
  async run(batch: Batch, { lossScale, seed }: { lossScale: number; seed: number }): Promise<StepResult> {
    const { model, objective } = this;
    const feeds = objective.feeds(batch, { lossScale });
    const session = await this.session(kindOf(batch, objective));
    const { outputs } = await session.run({
      ...(await model.parameterFeeds()),
      ...feeds,
      ...objective.noise(batch, seed),
    });
    const gradients = new Map<string, Float32Array>();
    for (const parameter of this.trained)
      gradients.set(parameter.name, outputs[gradientName(parameter)]!.data as Float32Array);
    return { loss: lossOf(outputs), gradients };
  }

  dispose(): Promise<void> {
    return this.sessions.dispose();
  }

  private session(kind: GraphKind): Promise<Session> {
    const { model, modelDropout, objective } = this;
    return this.sessions.get(
      kind,
      () => trainingProgram(model, { ...kind, modelDropout, objective }).outputs,
    );
  }
}

/** The forward pass alone, without dropout, for evaluation. */
export class EvaluationStep {
  private readonly model: LanguageModel;
  private readonly objective: Objective;
  private readonly sessions: Sessions;

  private constructor(model: LanguageModel, engine: Engine) {
    this.model = model;
    this.objective = objectiveOf(model);
    this.sessions = new Sessions(engine);
  }

  static async create(model: LanguageModel, engine: Engine): Promise<EvaluationStep> {
    const step = new EvaluationStep(model, engine);
    if (!step.objective.readsPictures) await step.session({});
    return step;
  }

  /** Sum of the label tokens' losses, in nats. */
  async run(batch: Batch): Promise<number> {
    if (batch.labelTokens === 0) return 0;
    const { model, objective } = this;
    const feeds = objective.feeds(batch, { lossScale: 1 });
    const session = await this.session(kindOf(batch, objective));
    const { outputs } = await session.run({ ...(await model.parameterFeeds()), ...feeds });
    return lossOf(outputs);
  }

  dispose(): Promise<void> {
    return this.sessions.dispose();
  }

  private session(kind: GraphKind): Promise<Session> {
    const { image, packed = false } = kind;
    return this.sessions.get(kind, () => ({ loss: this.objective.loss({ image, packed, dropout: false }) }));
  }
}

const kindOf = (batch: Batch, objective: Objective): GraphKind => ({
  image: objective.imageSize(batch),
  packed: batch.segments !== undefined,
});

const lossOf = (outputs: Readonly<Record<string, Tensor>>): number =>
  (outputs["loss"]!.data as Float32Array)[0]!;

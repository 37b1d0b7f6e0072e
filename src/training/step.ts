import type { Batch } from "../data/index.ts";
import type { Value } from "../graph/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { type Objective, objectiveOf } from "./objective.ts";
import type { PrefixCache } from "./prefix-cache/index.ts";
import { evaluationProgram, gradientName, trainedParameters, trainingProgram } from "./program.ts";
import { type GraphKind, type Loaded, nameOfKind, Sessions } from "./sessions.ts";

export type StepResult = {
  /** scale · Σ of the label tokens' losses. */
  readonly loss: number;
  /** By parameter name. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
};

export type StepOptions = {
  readonly modelDropout?: boolean;
  /** Computes what is frozen once per example. */
  readonly prefixCache?: PrefixCache | undefined;
};

/** The forward and backward pass of a model, in an engine. Graphs are loaded with the first batch that needs them. */
export class TrainingStep {
  /** What it has gradients for, in the order of the module tree. */
  readonly trained: readonly Parameter[];
  private readonly graphs: Graphs;

  constructor(model: LanguageModel, engine: Engine, { modelDropout = false, prefixCache }: StepOptions = {}) {
    this.trained = trainedParameters(model);
    this.graphs = new Graphs(
      model,
      engine,
      { dataset: "train", prefixCache },
      (kind, objective) => trainingProgram(model, { ...kind, modelDropout, objective }).outputs,
    );
  }

  /** Loads what a batch needs, that of its frozen values included; `run` does so too. */
  async prepare(batch: Batch): Promise<void> {
    const { kept } = await this.graphs.for(batch);
    await kept?.prepare(batch);
  }

  /** Loss and gradients of a batch at the parameters' current values. `seed` decides the dropout masks. */
  async run(batch: Batch, { lossScale, seed }: { lossScale: number; seed: number }): Promise<StepResult> {
    const outputs = await this.graphs.run(batch, { lossScale, seed });
    const gradients = new Map<string, Float32Array>();
    for (const parameter of this.trained)
      gradients.set(parameter.name, outputs[gradientName(parameter)]!.data as Float32Array);
    return { loss: lossOf(outputs), gradients };
  }

  /** Shape of an example's picture, [channels, height, width], if its values need not be read. */
  pictureShape(index: number): readonly number[] | undefined {
    return this.graphs.pictureShape(index);
  }

  dispose(): Promise<void> {
    return this.graphs.dispose();
  }
}

/** The forward pass alone, without dropout, for evaluation. */
export class EvaluationStep {
  private readonly graphs: Graphs;

  constructor(model: LanguageModel, engine: Engine, { prefixCache }: Pick<StepOptions, "prefixCache"> = {}) {
    this.graphs = new Graphs(model, engine, { dataset: "evaluation", prefixCache }, (kind, objective) =>
      evaluationProgram(model, { ...kind, objective }),
    );
  }

  /** Sum of the label tokens' losses, in nats. */
  async run(batch: Batch): Promise<number> {
    return batch.labelTokens === 0 ? 0 : lossOf(await this.graphs.run(batch, { lossScale: 1 }));
  }

  /** As that of `TrainingStep`. */
  pictureShape(index: number): readonly number[] | undefined {
    return this.graphs.pictureShape(index);
  }

  /** Frees what is loaded; the next batch loads it again, without building it anew. */
  unload(): Promise<void> {
    return this.graphs.unload();
  }

  dispose(): Promise<void> {
    return this.graphs.dispose();
  }
}

/** The graphs of a model for batches of any kind, loaded when they are needed. */
class Graphs {
  readonly model: LanguageModel;
  private readonly objective: Objective;
  private readonly sessions: Sessions;
  private readonly cache: { readonly dataset: string; readonly prefixCache: PrefixCache | undefined };
  private readonly build: (kind: GraphKind, objective: Objective) => Record<string, Value>;
  private attentionBlocks = 1;

  constructor(
    model: LanguageModel,
    engine: Engine,
    cache: { readonly dataset: string; readonly prefixCache: PrefixCache | undefined },
    build: (kind: GraphKind, objective: Objective) => Record<string, Value>,
  ) {
    this.model = model;
    this.objective = objectiveOf(model);
    this.sessions = new Sessions(engine);
    this.cache = cache;
    this.build = build;
  }

  async for(batch: Batch): Promise<Loaded> {
    const { model, objective } = this;
    const { dataset, prefixCache } = this.cache;
    await this.makeReadyFor(batch.inputIds.shape[1]!);
    const kind: GraphKind = {
      image: objective.imageSize(batch),
      packed: batch.segments !== undefined,
      attentionBlocks: this.attentionBlocks,
    };
    return this.sessions.get(kind, async () => {
      const outputs = this.build(kind, objective);
      const program = { model, objective, outputs, batch, dataset, kind: nameOfKind(kind) };
      return (await prefixCache?.cut(program)) ?? { outputs };
    });
  }

  /** Long rows get graphs of their own, which the short ones after them use as well. */
  private async makeReadyFor(sequence: number): Promise<void> {
    const blocks = attentionBlocks(sequence);
    if (blocks <= this.attentionBlocks) return;
    this.attentionBlocks = blocks;
    await this.sessions.dispose();
  }

  /** `seed` decides what is dropped, where something is. */
  async run(
    batch: Batch,
    { lossScale, seed }: { lossScale: number; seed?: number },
  ): Promise<Readonly<Record<string, Tensor>>> {
    const { model, objective } = this;
    const feeds = objective.feeds(batch, { lossScale });
    const { session, kept } = await this.for(batch);
    const { outputs } = await session.run({
      ...(await model.parameterFeeds()),
      ...feeds,
      ...(seed !== undefined && objective.noise(batch, seed)),
      ...(await kept?.of(batch)),
    });
    return outputs;
  }

  pictureShape(index: number): readonly number[] | undefined {
    const { dataset, prefixCache } = this.cache;
    return prefixCache?.pictureShape(dataset, index);
  }

  unload(): Promise<void> {
    return this.sessions.unload();
  }

  dispose(): Promise<void> {
    return this.sessions.dispose();
  }
}

/**
 * How many blocks of queries attention is worth taking in. Each costs some 25 operators per layer, which rows of 256 tokens do not
 * give back (2 cores: 1 % of a step of SmolLM2-135M; 512 tokens 7 %, 1024 tokens 15 %).
 */
const attentionBlocks = (sequence: number): number => (sequence < 384 ? 1 : sequence < 768 ? 4 : 8);

const lossOf = (outputs: Readonly<Record<string, Tensor>>): number =>
  (outputs["loss"]!.data as Float32Array)[0]!;

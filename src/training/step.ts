import type { Batch } from "../data/index.ts";
import type { Value } from "../graph/index.ts";
import type { LanguageModel } from "../models/index.ts";
import type { Parameter } from "../nn/index.ts";
import type { Engine } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";
import { sizesOf } from "./batch-sizes.ts";
import type { GradientCheckpointing } from "./gradient-checkpointing.ts";
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
  /** Decides what the backward pass computes again. */
  readonly checkpointing?: GradientCheckpointing | undefined;
  /** Told in a sentence if a batch needs more to be computed again than those before. */
  readonly onWarning?: (message: string) => void;
};

/** The forward and backward pass of a model, in an engine. Graphs are loaded with the first batch that needs them. */
export class TrainingStep {
  /** What it has gradients for, in the order of the module tree. */
  readonly trained: readonly Parameter[];
  private readonly graphs: Graphs;

  constructor(model: LanguageModel, engine: Engine, { modelDropout = false, ...options }: StepOptions = {}) {
    this.trained = trainedParameters(model);
    this.graphs = new Graphs(model, engine, {
      ...options,
      dataset: "train",
      build: (kind, objective, isRecomputed) =>
        trainingProgram(model, { ...kind, modelDropout, objective, isRecomputed }).outputs,
    });
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
    this.graphs = new Graphs(model, engine, {
      prefixCache,
      dataset: "evaluation",
      build: (kind, objective) => evaluationProgram(model, { ...kind, objective }),
    });
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

type GraphsOptions = Pick<StepOptions, "prefixCache" | "checkpointing" | "onWarning"> & {
  readonly dataset: string;
  readonly build: (
    kind: GraphKind,
    objective: Objective,
    isRecomputed: (block: number) => boolean,
  ) => Record<string, Value>;
};

/** The graphs of a model for batches of any kind, loaded when they are needed. */
class Graphs {
  readonly model: LanguageModel;
  private readonly objective: Objective;
  private readonly sessions: Sessions;
  private readonly options: GraphsOptions;
  /** By kind: what was chosen for the largest batch so far. */
  private readonly chosen = new Map<string, Chosen>();
  private attentionBlocks = 1;

  constructor(model: LanguageModel, engine: Engine, options: GraphsOptions) {
    this.model = model;
    this.objective = objectiveOf(model);
    this.sessions = new Sessions(engine);
    this.options = options;
  }

  async for(batch: Batch): Promise<Loaded> {
    const { model, objective } = this;
    const { dataset, prefixCache } = this.options;
    await this.makeReadyFor(batch.inputIds.shape[1]!);
    const kind: GraphKind = {
      image: objective.imageSize(batch),
      packed: batch.segments !== undefined,
      attentionBlocks: this.attentionBlocks,
    };
    await this.chooseAgain(kind, batch);
    return this.sessions.get(kind, async () => {
      const { outputs, name } = this.chosenFor(kind, batch);
      const program = { model, objective, outputs, batch, dataset, kind: name };
      return (await prefixCache?.cut(program)) ?? { outputs };
    });
  }

  /** Long rows get graphs of their own, which the short ones after them use as well. */
  private async makeReadyFor(sequence: number): Promise<void> {
    const blocks = attentionBlocks(sequence);
    if (blocks <= this.attentionBlocks) return;
    this.attentionBlocks = blocks;
    await this.sessions.dispose();
    this.chosen.clear();
  }

  /** Drops what is loaded for a kind of batches if one is too large for it. */
  private async chooseAgain(kind: GraphKind, batch: Batch): Promise<void> {
    const { checkpointing, onWarning } = this.options;
    const known = this.chosen.get(nameOfKind(kind));
    if (!checkpointing || !known || tokensOf(batch) <= known.tokens) return;
    if (!checkpointing.exceeds(known.outputs, sizesOf(batch, this.model.vocabSize))) {
      this.chosen.set(nameOfKind(kind), { ...known, tokens: tokensOf(batch) });
      return;
    }
    this.chosen.delete(nameOfKind(kind));
    const { name } = this.chosenFor(kind, batch);
    if (name === known.name) return;
    onWarning?.(`a batch is larger than those before: ${checkpointing.report!.reason}`);
    await this.sessions.drop(kind);
  }

  private chosenFor(kind: GraphKind, batch: Batch): Chosen {
    const { checkpointing, build } = this.options;
    const { model, objective } = this;
    const known = this.chosen.get(nameOfKind(kind));
    if (known) return known;
    const outputs = checkpointing
      ? checkpointing.choose(
          (isRecomputed) => build(kind, objective, isRecomputed),
          sizesOf(batch, model.vocabSize),
        )
      : build(kind, objective, () => false);
    const again = checkpointing?.report?.recomputed ?? 0;
    const name = again === 0 ? nameOfKind(kind) : `${nameOfKind(kind)}, ${again} blocks twice`;
    const chosen = { outputs, name, tokens: tokensOf(batch) };
    if (checkpointing) this.chosen.set(nameOfKind(kind), chosen);
    return chosen;
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
    const { dataset, prefixCache } = this.options;
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

type Chosen = { readonly outputs: Record<string, Value>; readonly name: string; readonly tokens: number };

/** Padding included: what a batch's size in memory goes by. */
const tokensOf = ({ inputIds, labels }: Batch): number => inputIds.data.length + labels.data.length;

const lossOf = (outputs: Readonly<Record<string, Tensor>>): number =>
  (outputs["loss"]!.data as Float32Array)[0]!;

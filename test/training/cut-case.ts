import { expect } from "vitest";
import { type Batch, collate, type Example } from "../../src/data/index.ts";
import {
  type Cut,
  type CutOptions,
  cutFrozen,
  joinKept,
  type Kept,
  reachable,
  type Span,
  sinkGathers,
  spansInRows,
  spansOfCounts,
  splitKept,
  type Value,
} from "../../src/graph/index.ts";
import type { ImageSize, LanguageModel } from "../../src/models/index.ts";
import type { Engine, Feeds, Session } from "../../src/runtime/index.ts";
import { numel, type Tensor } from "../../src/tensor/index.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import { trainingProgram } from "../../src/training/program.ts";
import { relativeL2 } from "../support/close.ts";

/** Relative. Products of other numbers of rows round otherwise, and gradients of queries and keys are small differences. */
const LOSS = 1e-6;
const GRADIENT = 1e-5;

const layout = ["attention_mask", "decoder_attention_mask", "position_ids", "image_rows", "label_positions"];

/** Names of the inputs of a graph. */
export const inputsOf = (outputs: Readonly<Record<string, Value>>): string[] =>
  reachable(Object.values(outputs)).flatMap(({ source }) => (source.kind === "input" ? [source.name] : []));

/** The cut of a model's training graph, for batches of four examples of twelve tokens. */
export function cutOf(
  outputs: Readonly<Record<string, Value>>,
  options: Partial<CutOptions> = {},
): Cut | undefined {
  return cutFrozen(outputs, {
    varying: inputsOf(outputs).filter((name) => name.includes("dropout_noise")),
    layout,
    sizes: { batch: 4, images: 4, sequence: 12, source: 12, target: 8, labels: 20 },
    flopsPerByte: 10,
    ...options,
  });
}

type Batching = {
  readonly side: "left" | "right";
  readonly padToMultipleOf?: number;
  readonly rows?: readonly number[][];
};

/**
 * Computes a batch's outputs as they are, and from what is kept of its examples when they are computed in other batches; expects
 * the same.
 */
export class CutCase {
  private readonly engine: Engine;
  private readonly model: LanguageModel;
  private readonly sessions = new Map<Record<string, Value>, Session>();
  readonly outputs: Record<string, Value>;

  constructor(
    engine: Engine,
    model: LanguageModel,
    { image, packed = false, sunk = false }: { image?: ImageSize; packed?: boolean; sunk?: boolean } = {},
  ) {
    this.engine = engine;
    this.model = model;
    const objective = objectiveOf(model);
    // With `sunk`, rows without a label are left out as early as possible.
    const loss: typeof objective.loss = (options) => {
      const whole = objective.loss(options);
      return sunk ? Object.assign(whole, sinkGathers({ rows: whole.rows })) : whole;
    };
    this.outputs = trainingProgram(model, { image, packed, objective: { ...objective, loss } }).outputs;
  }

  /** For `examples`, which the prefix sees in `groups` of their numbers; `slack` is how far gradients may be apart, relatively. */
  async compare(
    cut: Cut,
    examples: readonly Example[],
    {
      groups,
      whole,
      parts,
      slack = GRADIENT,
      prefix = cut.prefix,
    }: {
      groups: readonly number[][];
      whole: Batching;
      parts: Batching;
      slack?: number;
      prefix?: Cut["prefix"];
    },
  ): Promise<void> {
    const { batch, feeds } = await this.feed(examples, whole);
    const plain = await this.run(this.outputs, feeds);

    const keptOf = new Map<number, ReadonlyMap<string, Tensor<"float32">>>();
    for (const group of groups) {
      const part = await this.feed(
        group.map((i) => examples[i]!),
        parts,
      );
      const values = await this.run(prefix, part.feeds);
      const split = cut.kept.map(({ name, rows }) => {
        const spans = spansFor(rows, part.batch);
        return splitKept(rows, values[name] as Tensor<"float32">, spans);
      });
      for (const [place, i] of group.entries())
        keptOf.set(i, new Map(cut.kept.map(({ name }, k) => [name, split[k]![place]!])));
    }
    const joined = cut.kept.map(({ name, rows }) => {
      const spans = spansFor(rows, batch);
      const lengths: Record<string, readonly number[]> = {
        sequence: batch.inputIds.shape,
        source: batch.inputIds.shape,
        target: batch.labels.shape,
      };
      const leading = rows.kind === "token" ? lengths[rows.sequence]! : [batch.pixelValues!.shape[0]!];
      const values = examples.map((_, i) => keptOf.get(i)!.get(name)!);
      return [name, joinKept(rows, values, { leading, spans })] as const;
    });
    const behind = await this.run(cut.outputs, { ...feeds, ...Object.fromEntries(joined) });

    expect(Object.keys(behind)).toEqual(Object.keys(plain));
    for (const [name, { data }] of Object.entries(plain))
      expect(relativeL2(behind[name]!.data as Float32Array, data as Float32Array), name).toBeLessThan(
        name === "loss" ? LOSS : slack,
      );
  }

  /** Runs a graph, which is loaded once. */
  private async run(outputs: Record<string, Value>, feeds: Feeds): Promise<Readonly<Record<string, Tensor>>> {
    const session = this.sessions.get(outputs) ?? (await this.engine.createSession(outputs));
    this.sessions.set(outputs, session);
    return (await session.run(feeds)).outputs;
  }

  /** A batch, and everything that the whole graph reads. */
  private async feed(examples: readonly Example[], batching: Batching) {
    const objective = objectiveOf(this.model);
    const batch = collate(examples, {
      padTokenId: this.model.padTokenId,
      ...batching,
      labels: objective.labels,
    });
    const feeds = {
      ...(await this.model.parameterFeeds()),
      ...objective.feeds(batch, { lossScale: 1 / batch.labelTokens }),
      ...objective.noise(batch, 5),
    };
    return { batch, feeds };
  }
}

function spansFor(rows: Kept["rows"], { places, inputIds, labels }: Batch): Span[] {
  if (rows.kind === "example") return spansOfCounts(places.map(() => 1));
  if (rows.sequence !== "target") return spansInRows(places, inputIds.shape[1]!);
  const targets = places.map(({ row, labels: length }) => ({ row, start: 0, length }));
  return spansInRows(targets, labels.shape[1]!);
}

/** Examples of random tokens, of other lengths each; the first tokens have no label. */
export function randomExamples(
  lengths: readonly number[],
  { vocabulary, labels }: { vocabulary: number; labels?: readonly number[] },
): Example[] {
  let state = 1;
  const next = (): number => {
    state = (Math.imul(state, 48271) >>> 0) % 2147483647;
    return 3 + (state % (vocabulary - 4));
  };
  return lengths.map((length, i) => {
    const inputIds = Array.from({ length }, next);
    const targets = labels
      ? Array.from({ length: labels[i]! }, next)
      : inputIds.map((id, place) => (place < 2 ? -100 : id));
    return { inputIds, labels: targets };
  });
}

/** Elements of what is kept of one token. */
export const widths = ({ kept }: Cut): number[] => kept.map(({ rows }) => numel(rows.shape));

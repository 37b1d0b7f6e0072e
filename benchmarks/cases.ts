import { type Contestant, contestants } from "./contestants.ts";
import { selectionOf } from "./selections.ts";
import { emptyModel, type RowShape, type ShapeName, shapes } from "./shapes.ts";

/** What is measured together, and has tables of its own. */
export const parts = ["models", "epochs", "layers", "generation", "scaling"] as const;
export type Part = (typeof parts)[number];

/** Quantities that a scaling series varies, one at a time. */
export type Series = "sequence" | "batch" | "rank" | "parameters";

/** A number of epochs over a few batches. */
export type TrainingWork = {
  readonly kind: "training";
  readonly batch: number;
  readonly batches: number;
  readonly epochs: number;
  /** Share of each row of text, at its end, that carries labels. */
  readonly labelFraction: number;
  /** First steps that don't count for the time of a step. */
  readonly warmup: number;
};

/** Writing new tokens after a prompt, greedily, all rows of the batch at once. */
export type GenerationWork = {
  readonly kind: "generation";
  readonly batch: number;
  readonly prompt: number;
  readonly newTokens: number;
};

/** One piece of work, done by every contestant in a process of its own. */
export type Case = {
  /** Names it for ever, also in files of results. */
  readonly id: string;
  readonly parts: readonly Part[];
  readonly shape: ShapeName;
  readonly selection: string;
  readonly row: RowShape;
  readonly work: TrainingWork | GenerationWork;
  readonly contestants: readonly Contestant[];
};

export type TrainingCase = Case & { readonly work: TrainingWork };
export const isTraining = (one: Case): one is TrainingCase => one.work.kind === "training";

const floats: readonly Contestant[] = ["graft", "torch-float32"];
const published: readonly Contestant[] = [...floats, "torch-bfloat16"];
const all: readonly Contestant[] = ["graft", "graft-int8", "torch-float32", "torch-bfloat16"];

type TrainingOptions = Partial<Omit<TrainingWork, "kind">> & {
  sequence?: number;
  contestants?: readonly Contestant[];
};

/** The id says everything that the work's result depends on, except for how often it is repeated. */
function training(part: Part, shape: ShapeName, selection: string, options: TrainingOptions = {}): Case {
  const { batch = 4, batches = 5, epochs = 1, labelFraction = 1, warmup = 2, sequence } = options;
  const { row: usual } = shapes[shape];
  const row = usual.kind === "text" && sequence !== undefined ? { ...usual, sequence } : usual;
  const length = row.kind === "text" ? row.sequence : row.size;
  const id = [
    shape,
    selection,
    `${batch}x${length}`,
    ...(labelFraction < 1 ? [`labels-${labelFraction}`] : []),
    ...(epochs > 1 ? [`epochs-${epochs}`] : []),
  ].join("/");
  const work = { kind: "training", batch, batches, epochs, labelFraction, warmup } as const;
  return { id, parts: [part], shape, selection, row, work, contestants: options.contestants ?? all };
}

function generation(
  shape: ShapeName,
  [batch, prompt, newTokens]: readonly [batch: number, prompt: number, newTokens: number],
  taking = all,
): Case {
  const { row } = shapes[shape];
  return {
    id: `${shape}/generation/${batch}x${prompt}+${newTokens}`,
    parts: ["generation"],
    shape,
    selection: "qv",
    row,
    work: { kind: "generation", batch, prompt, newTokens },
    contestants: taking,
  };
}

const smol = "smollm2-135m";
const florence = "florence2-base";

/** The same work may stand in several parts; it is measured once. @throws Error if one id stands for different work. */
function merged(cases: readonly Case[]): readonly Case[] {
  const byId = new Map<string, Case>();
  for (const one of cases) {
    const known = byId.get(one.id);
    if (!known) byId.set(one.id, one);
    else {
      if (JSON.stringify(known.work) !== JSON.stringify(one.work))
        throw new Error(`${one.id} is two kinds of work.`);
      const taking = contestants.filter((c) => [...known.contestants, ...one.contestants].includes(c));
      byId.set(one.id, {
        ...known,
        parts: parts.filter((part) => [...known.parts, ...one.parts].includes(part)),
        contestants: taking,
      });
    }
  }
  return [...byId.values()];
}

/** Steps of models of several sizes and of several selections. */
const models = [
  training("models", smol, "all-linear", { contestants: [...contestants] }),
  training("models", smol, "qv"),
  training("models", smol, "last-quarter", { contestants: [...contestants] }),
  training("models", smol, "last-layer"),
  ...["all-linear", "qv", "last-quarter", "last-layer"].map((selection) =>
    training("models", "qwen2.5-0.5b", selection, { batch: 2, batches: 4 }),
  ),
  ...["top-qv", "top-linear", "vision-qkv", "all-linear"].map((selection) =>
    training("models", florence, selection, { batch: 1, batches: 4, contestants: published }),
  ),
];

/** Several passes over the same data. */
const epochs = [
  training("epochs", smol, "last-quarter", { batches: 4, epochs: 3, contestants: [...contestants] }),
  training("epochs", smol, "last-quarter", { batches: 4, epochs: 3, labelFraction: 0.25 }),
  training("epochs", florence, "top-qv", { batch: 1, batches: 4, epochs: 10, contestants: published }),
];

const layerCounts = (shape: ShapeName): number[] => (shape === smol ? [1, 2, 4, 8, 15, 30] : [1, 4]);

/** q and v of the last 1, 2, 4, … of all layers, with several passes. */
export const layers = (shape: ShapeName): { readonly count: number; readonly one: Case }[] =>
  layerCounts(shape).map((count) => ({
    count,
    one: training("layers", shape, `last-${count}`, { batches: 2, epochs: 3, contestants: floats }),
  }));

const scaled = (shape: ShapeName, selection: string, options: TrainingOptions = {}): Case =>
  training("scaling", shape, selection, { batch: 2, batches: 4, contestants: floats, ...options });

type ScalingPoint = { readonly value: number; readonly one: Case };

const sizes = ["smollm2-quarter", smol, "qwen2.5-0.5b"] as const;

/** What grows, one quantity at a time, from every linear layer, r 16, 2 × 256 tokens of SmolLM2-135M's shape. */
export const scaling: Readonly<Record<Series, readonly ScalingPoint[]>> = {
  sequence: [128, 256, 512, 1024].map((value) => ({
    value,
    one: scaled(smol, "all-linear", { sequence: value }),
  })),
  batch: [1, 2, 4, 8].map((value) => ({
    value,
    one: scaled(smol, "all-linear", { batch: value, ...(value === 4 && { batches: 5 }) }),
  })),
  rank: [4, 16, 64].map((value) => ({
    value,
    one: scaled(smol, value === 16 ? "all-linear" : `all-linear-r${value}`),
  })),
  parameters: sizes.map((shape) => ({
    value: emptyModel(shapes[shape].config).parameterCount(),
    one: scaled(shape, "all-linear"),
  })),
};

/** All that is measured. */
export const cases: readonly Case[] = merged([
  ...models,
  ...epochs,
  ...layers(smol).map(({ one }) => one),
  generation(smol, [1, 128, 64]),
  generation(smol, [8, 128, 64]),
  ...Object.values(scaling).flatMap((points) => points.map(({ one }) => one)),
]);

/** Every kind of case once, with toys. */
export const quickCases: readonly Case[] = merged([
  training("models", "toy", "all-linear", { batches: 3, warmup: 1 }),
  training("models", "florence2-toy", "top-qv", { batch: 2, batches: 2, warmup: 1, contestants: floats }),
  training("epochs", "toy", "last-quarter", {
    batches: 2,
    epochs: 3,
    labelFraction: 0.25,
    contestants: floats,
  }),
  ...layers("toy").map(({ one }) => one),
  generation("toy", [2, 16, 8], floats),
]);

/** What a case is called in tables. */
export function titleOf({ shape, selection, row, work }: Case): string {
  const { title } = selectionOf(shape, selection);
  if (work.kind === "generation") return `batch ${work.batch}, ${work.prompt} + ${work.newTokens} tokens`;
  const labels =
    work.labelFraction === 1 ? "" : `, labels on the last ${work.labelFraction * 100} % of the tokens`;
  const passes = work.epochs === 1 ? "" : `, ${work.epochs} epochs`;
  return `${title}, ${work.batch} × ${rowTitle(row)}${labels}${passes}`;
}

const rowTitle = (row: RowShape): string => String(row.kind === "text" ? row.sequence : "picture");

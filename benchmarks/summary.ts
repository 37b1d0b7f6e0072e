import type { Contestant, Measurement } from "./measure.ts";
import type { ShapeName } from "./shapes.ts";

/** What is compared: a model's shape, a name of `selectionsOf` it, and rows per step. */
export type Case = { readonly shape: ShapeName; readonly selection: string; readonly batch: number };

/** Everything that one contestant did in one case. */
export type Series = {
  readonly case: Case;
  readonly contestant: Contestant;
  readonly rounds: readonly Measurement[];
};

/** Medians over the rounds. */
export type Summary = {
  readonly stepSeconds: number;
  /** Fastest and slowest round, each by its median step. */
  readonly stepSecondsRange: readonly [number, number];
  readonly peakRssBytes: number;
  /** From opening the checkpoint to the end of the first step. */
  readonly firstStepSeconds: number;
  /** Of the first step, before any update: the base model's, as adapters start without effect. */
  readonly firstLoss: number;
};

export function summarize({ rounds }: Series, warmup: number): Summary {
  const steps = rounds.map(({ stepSeconds }) => median(stepSeconds.slice(warmup)));
  return {
    stepSeconds: median(steps),
    stepSecondsRange: [Math.min(...steps), Math.max(...steps)],
    peakRssBytes: median(rounds.map(({ peakRssBytes }) => peakRssBytes)),
    firstStepSeconds: median(rounds.map(({ loadSeconds, stepSeconds }) => loadSeconds + stepSeconds[0]!)),
    firstLoss: rounds[0]!.losses[0]!,
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return Number.isInteger(middle) ? (sorted[middle - 1]! + sorted[middle]!) / 2 : sorted[Math.floor(middle)]!;
}

/** How far losses may be apart: both sum in float32, or PyTorch in bfloat16. Relative. */
const LOSS_TOLERANCE: Readonly<Record<Contestant, number>> = {
  graft: 0,
  "torch-float32": 1e-4,
  "torch-bfloat16": 1e-2,
};

/** One case's comparison. */
export type Comparison = {
  readonly case: Case;
  readonly trainableParameters: number;
  readonly summaries: { readonly graft: Summary } & { readonly [C in Contestant]?: Summary };
  /** Graft against each of the others: how many times as fast, and its peak memory as a share of theirs. */
  readonly ratios: { readonly [C in Contestant]?: { readonly speedup: number; readonly memory: number } };
};

/**
 * @throws Error if contestants train other numbers of parameters, or start from another loss: then they have not done the
 * same work.
 */
export function compare(series: readonly Series[], warmup: number): Comparison {
  const own = series.find(({ contestant }) => contestant === "graft")!;
  const { shape, selection, batch } = own.case;
  const name = `${shape} ${selection} batch ${batch}`;
  const { trainableParameters } = own.rounds[0]!;
  const graft = summarize(own, warmup);
  const summaries: { graft: Summary } & { [C in Contestant]?: Summary } = { graft };
  const ratios: { [C in Contestant]?: { speedup: number; memory: number } } = {};
  for (const other of series) {
    if (other === own) continue;
    const { contestant, rounds } = other;
    const summary = summarize(other, warmup);
    if (rounds[0]!.trainableParameters !== trainableParameters)
      throw new Error(
        `${name}: Graft trains ${trainableParameters} parameters, ${contestant} ${rounds[0]!.trainableParameters}.`,
      );
    if (!(Math.abs(graft.firstLoss / summary.firstLoss - 1) <= LOSS_TOLERANCE[contestant]))
      throw new Error(
        `${name}: the first loss is ${graft.firstLoss} in Graft and ${summary.firstLoss} in ${contestant}.`,
      );
    summaries[contestant] = summary;
    ratios[contestant] = {
      speedup: summary.stepSeconds / graft.stepSeconds,
      memory: graft.peakRssBytes / summary.peakRssBytes,
    };
  }
  return { case: own.case, trainableParameters, summaries, ratios };
}

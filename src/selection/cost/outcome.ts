import { type Account, type Flops, sumFlops } from "./account.ts";
import type { Figures, FlopsByPart } from "./cost.ts";
import { Flow } from "./flow.ts";
import { keptPrefix } from "./frozen.ts";
import { type Pass, passThrough } from "./passes.ts";
import { feedOf, positionsOf, type Setting, unitsOf } from "./setting.ts";
import type { TrainedUnits } from "./trained.ts";

/** What one way of training costs. */
export type Outcome = {
  readonly figures: Figures;
  readonly passes: readonly Pass[];
  readonly known: readonly Pass[];
  /** Of the largest single result of the forward pass. */
  readonly largestBytes: number;
};

/** Sums are over the towers of which the number of positions is known. */
export function figuresOf(trained: TrainedUnits, setting: Setting): Outcome {
  const { layout, selection, assumptions } = setting;
  const perToken = assumptions.expertsPerToken(setting);
  const flow = new Flow((unit) => trained.of(unit), perToken, selection.config.loraDropout > 0);
  const passes = passThrough(layout, flow, feedOf(trained, setting));
  const known = passes.filter(({ tower }) => positionsOf(tower, setting).count !== undefined);
  const units = unitsOf(setting);
  const total = (pick: (account: Account) => Flops): FlopsByPart =>
    flopsPer(
      known.map(({ account }) => pick(account)),
      units,
    );
  const forwardFlops = total(({ forward }) => forward);
  const backwardFlops = total(({ backward }) => backward);
  const frozen = known.flatMap(({ account }) => account.frozen);
  const step = forwardFlops.total + backwardFlops.total;
  const prefix = keptPrefix(frozen, step * units, setting.flopsPerByte);
  const saved = flopsPer([prefix.saved], units);
  return {
    passes,
    known,
    largestBytes: flow.largestBytes,
    figures: {
      trainableParameters: trained.parameters,
      adapterParameters: trained.file.parameters,
      adapterBytes: trained.file.bytes,
      gradientBytes: 4 * trained.parameters,
      optimizerBytes: 8 * trained.parameters,
      ...{ forwardFlops, backwardFlops },
      laterEpochs: {
        forwardFlops: minus(forwardFlops, saved),
        share: step === 0 ? 1 : 1 - saved.total / step,
        keptBytes: prefix.bytes / setting.batchSize,
      },
      activationBytes: known.reduce((sum, { account }) => sum + account.keptBytes, 0),
    },
  };
}

const minus = (a: FlopsByPart, b: FlopsByPart): FlopsByPart => ({
  total: a.total - b.total,
  frozen: a.frozen - b.frozen,
  trained: a.trained - b.trained,
  attention: a.attention - b.attention,
  head: a.head - b.head,
});

/** Of all together, for each of `units` tokens or examples. */
export function flopsPer(all: readonly Flops[], units: number): FlopsByPart {
  const sum = (part: keyof Flops): number => all.reduce((total, flops) => total + flops[part], 0) / units;
  const parts = {
    frozen: sum("frozen"),
    trained: sum("trained"),
    attention: sum("attention"),
    head: sum("head"),
  };
  return { total: sumFlops(parts), ...parts };
}

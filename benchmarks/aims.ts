import { cases, layers } from "./cases.ts";
import { advantage, share } from "./compare.ts";
import type { Contestant } from "./contestants.ts";
import { layersFit } from "./layers.ts";
import { firstEpochs, type Quantity, quantities } from "./quantities.ts";
import type { Results } from "./results.ts";
import type { Spread } from "./statistics.ts";

/** What is wanted of one ratio. */
export type Aim = {
  readonly name: string;
  readonly work: string;
  readonly compared: string;
  /** Without it, that it is shown is enough. */
  readonly least: number | undefined;
  readonly aim: number;
  /** Of the ratio; the slope is to be within 1 ± (1 − aim). */
  readonly better: "more" | "less" | "near 1";
  /** The cases that decide it. */
  readonly ids: readonly string[];
  measured(results: Results): Spread | undefined;
};

const allLinear = "smollm2-135m/all-linear/4x256";
const lastQuarter = "smollm2-135m/last-quarter/4x256/epochs-3";
const completions = "smollm2-135m/last-quarter/4x256/labels-0.25/epochs-3";
const florence = "florence2-base/top-qv/1x768/epochs-10";
const SMOL = "smollm2-135m";

type Pair = readonly [own: Contestant, other: Contestant];
const float32: Pair = ["graft", "torch-float32"];
const int8: Pair = ["graft-int8", "torch-bfloat16"];
const against = ([own]: Pair): string =>
  own === "graft" ? "over PyTorch float32" : "int8 base over PyTorch bfloat16";

function speed(
  name: string,
  work: string,
  id: string,
  [pair, quantity]: readonly [Pair, Quantity],
  [least, aim]: readonly [number, number],
): Aim {
  return {
    ...{ name, work, compared: `speed ${against(pair)}`, least, aim, better: "more", ids: [id] },
    measured: ({ cases: found }) => found[id] && advantage(found[id], quantity, pair),
  };
}

/** What Graft sets out to reach, in the order of its table. */
export const aims: readonly Aim[] = [
  speed("all-linear", "every linear layer, 4 × 256", allLinear, [float32, quantities.step], [1.6, 2]),
  {
    ...{ name: "all-linear-memory", work: "every linear layer, 4 × 256" },
    ...{
      compared: "peak memory, of PyTorch float32's",
      least: 1,
      aim: 0.8,
      better: "less",
      ids: [allLinear],
    },
    measured: ({ cases: found }) => found[allLinear] && share(found[allLinear], quantities.memory, float32),
  },
  speed("all-linear-int8", "every linear layer, 4 × 256", allLinear, [int8, quantities.step], [1.2, 1.5]),
  speed(
    "last-quarter",
    "last quarter, all tokens labelled, 3 epochs",
    lastQuarter,
    [float32, quantities.train],
    [2, 2.5],
  ),
  speed(
    "completions",
    "last quarter, labels on a quarter of the tokens, 3 epochs",
    completions,
    [float32, quantities.train],
    [2.5, 4],
  ),
  speed(
    "last-quarter-int8",
    "last quarter, all tokens labelled, 3 epochs",
    lastQuarter,
    [int8, quantities.train],
    [1.5, 2.5],
  ),
  speed(
    "completions-int8",
    "last quarter, labels on a quarter of the tokens, 3 epochs",
    completions,
    [int8, quantities.train],
    [1.5, 2.5],
  ),
  speed(
    "florence2-3",
    "Florence-2, last 2 encoder and all decoder layers, 3 epochs",
    florence,
    [float32, firstEpochs(3)],
    [2.5, 3.5],
  ),
  speed(
    "florence2-10",
    "Florence-2, last 2 encoder and all decoder layers, 10 epochs",
    florence,
    [float32, firstEpochs(10)],
    [4, 6],
  ),
  {
    ...{ name: "layers", work: "1, 2, 4, … all layers adapted, later epochs" },
    ...{
      compared: "time per layer, of what its operations predict",
      least: undefined,
      aim: 0.85,
      better: "near 1",
    },
    ids: layers(SMOL).map(({ one: { id } }) => id),
    measured(results) {
      const fit = layersFit(results, SMOL);
      if (!fit || fit.points.length < layers(SMOL).length) return undefined;
      const ratio = fit.slope / fit.predictedSlope;
      return { median: ratio, min: ratio, max: ratio };
    },
  },
  ...[1, 8].map((batch) =>
    speed(
      `generation-${batch}`,
      `generation with cache, batch ${batch}`,
      `smollm2-135m/generation/${batch}x128+64`,
      [float32, quantities.tokens],
      [1, 2],
    ),
  ),
];

export type Verdict = "aim" | "least" | "no" | "not measured";

export function verdict({ least, aim, better }: Aim, value: Spread | undefined): Verdict {
  if (value === undefined) return "not measured";
  const reaches = (bound: number): boolean =>
    better === "more"
      ? value.median >= bound
      : better === "less"
        ? value.median <= bound
        : Math.abs(value.median - 1) <= 1 - bound;
  return reaches(aim) ? "aim" : least === undefined || reaches(least) ? "least" : "no";
}

/** Cases that the table of aims needs. */
export const aimedCases = cases.filter(({ id }) => aims.some(({ ids }) => ids.includes(id)));

import { aims, type Verdict, verdict } from "./aims.ts";
import { type Case, cases, type Part, type Series, scaling, titleOf } from "./cases.ts";
import { advantage, share, valuesOf } from "./compare.ts";
import { type Contestant, contestants, titles } from "./contestants.ts";
import { layersFit } from "./layers.ts";
import { gigabytes, markdown, NOTHING, seconds, spreadText, times } from "./markdown.ts";
import { firstEpochs, type Quantity, quantities } from "./quantities.ts";
import { type CaseResult, machineOf, type Results } from "./results.ts";
import type { ShapeName } from "./shapes.ts";

/** Which of Graft's contestants stand against which of PyTorch's in the tables. */
const pairs: readonly (readonly [own: Contestant, other: Contestant])[] = [
  ["graft", "torch-float32"],
  ["graft", "torch-compile"],
  ["graft", "torch-bfloat16"],
  ["graft-int8", "torch-bfloat16"],
];

const verdicts: Readonly<Record<Verdict, string>> = {
  aim: "the aim",
  least: "the least",
  no: "no",
  "not measured": NOTHING,
};

/** The table of aims; rows without measurements say so. */
export function aimsTable(results: Results): string {
  const rows = aims.map((aim) => {
    const value = aim.measured(results);
    const [least, wanted] =
      aim.better === "near 1"
        ? ["shown", `1 ± ${(1 - aim.aim).toFixed(2)}`]
        : [aim.least!, aim.aim].map((bound) => `${aim.better === "less" ? "≤ " : ""}${bound}×`);
    return [aim.work, aim.compared, least!, wanted!, spreadText(value, times), verdicts[verdict(aim, value)]];
  });
  return markdown([["work", "compared", "at least", "aim", "measured", "reached"], ...rows], 2);
}

/** The same ratios on several machines. */
export function aimsElsewhere(results: Results, others: readonly Results[]): string {
  const all = [results, ...others];
  const rows = aims.map((aim) => [
    aim.work,
    aim.compared,
    ...all.map((one) => spreadText(aim.measured(one), times)),
  ]);
  return markdown(
    [["work", "compared", ...all.map((one) => `${machineOf(one)!.cpu}; ${one.date}`)], ...rows],
    2,
  );
}

/** Results of cases, in the order of the cases; what the code does not know any more comes last. */
function resultsOf({ cases: found }: Results, wanted: (one: Case) => boolean): CaseResult[] {
  const order = cases.map(({ id }) => id);
  const place = (id: string): number => (order.includes(id) ? order.indexOf(id) : order.length);
  return Object.values(found)
    .filter((result) => wanted(result.case))
    .sort((a, b) => place(a.case.id) - place(b.case.id));
}

/** A quantity of every contestant, and Graft's advantage or share of it. */
function comparison(
  results: readonly CaseResult[],
  quantity: Quantity,
  text: (value: number) => string,
  ratio?: "advantage" | "share",
): string {
  const present = (contestant: Contestant): boolean =>
    results.some((result) => valuesOf(result, contestant, quantity) !== undefined);
  const shown = contestants.filter(present);
  const compared = ratio ? pairs.filter((pair) => pair.every(present)) : [];
  const compare = ratio === "share" ? share : advantage;
  return markdown([
    [
      "work",
      ...shown.map((contestant) => titles[contestant]),
      ...compared.map(([own, other]) =>
        ratio === "share"
          ? `${titles[own]}, share of ${titles[other]}`
          : `${titles[own]} over ${titles[other]}`,
      ),
    ],
    ...results.map((result) => [
      titleOf(result.case),
      ...shown.map((contestant) => spreadText(valuesOf(result, contestant, quantity), text)),
      ...compared.map((pair) => spreadText(compare(result, quantity, pair), times)),
    ]),
  ]);
}

/** A heading's text and what stands below it. */
export type Section = { readonly title: string; readonly part: Part; readonly body: string };

const shapesOf = (results: readonly CaseResult[]): ShapeName[] => [
  ...new Set(results.map(({ case: { shape } }) => shape)),
];

function modelSections(all: Results): Section[] {
  const results = resultsOf(all, ({ parts }) => parts.includes("models"));
  return shapesOf(results).map((shape) => {
    const own = results.filter(({ case: one }) => one.shape === shape);
    const body = [
      "Time of a step, and how many times as fast Graft is:",
      comparison(own, quantities.step, seconds, "advantage"),
      "Peak resident memory of the process, and Graft's as a share of PyTorch's:",
      comparison(own, quantities.memory, gigabytes, "share"),
      "From opening the checkpoint to the end of the first step:",
      comparison(own, quantities.firstStep, seconds),
    ].join("\n\n");
    return { title: `A step of ${shape}`, part: "models", body };
  });
}

/** Epochs of a short run; a longer one is also read after so many. */
const SHORT = 3;

const isLong = ({ case: { work } }: CaseResult): boolean => work.kind === "training" && work.epochs > SHORT;

function epochSections(all: Results): Section[] {
  const results = resultsOf(all, ({ parts }) => parts.includes("epochs"));
  return shapesOf(results).map((shape) => {
    const own = results.filter(({ case: one }) => one.shape === shape);
    const body = [
      "All epochs, after loading:",
      comparison(own, quantities.train, seconds, "advantage"),
      ...(own.some(isLong)
        ? [
            `The first ${SHORT} epochs of it:`,
            comparison(own.filter(isLong), firstEpochs(SHORT), seconds, "advantage"),
          ]
        : []),
      "The first epoch:",
      comparison(own, quantities.firstEpoch, seconds, "advantage"),
      "Each later epoch:",
      comparison(own, quantities.laterEpoch, seconds, "advantage"),
      "Peak resident memory of the process:",
      comparison(own, quantities.memory, gigabytes, "share"),
      "From opening the checkpoint to the end of the first step:",
      comparison(own, quantities.firstStep, seconds),
    ].join("\n\n");
    return { title: `Several epochs of ${shape}`, part: "epochs", body };
  });
}

function layerSections(all: Results): Section[] {
  const shapes = shapesOf(resultsOf(all, ({ parts }) => parts.includes("layers")));
  return shapes.flatMap((shape) => {
    const fit = layersFit(all, shape);
    if (!fit) return [];
    const { points, slope, predictedSlope, torchSlope } = fit;
    const optional = (value: number | undefined): string => (value === undefined ? NOTHING : seconds(value));
    const body = [
      "A step of the later epochs, with q and v of the last layers adapted. What the operations predict is their number\ntimes what one takes in the step with all layers adapted:",
      markdown([
        ["adapted layers", "Graft", "predicted", "PyTorch float32", "Graft over PyTorch float32"],
        ...points.map(({ count, graft, predicted, torch }) => [
          ...[String(count), seconds(graft), seconds(predicted), optional(torch)],
          torch === undefined ? NOTHING : times(torch / graft),
        ]),
        [
          ...["each layer more", seconds(slope), seconds(predictedSlope), optional(torchSlope)],
          torchSlope === undefined ? NOTHING : times(torchSlope / slope),
        ],
      ]),
    ].join("\n\n");
    return [{ title: `Adapted layers of ${shape}`, part: "layers" as const, body }];
  });
}

function generationSections(all: Results): Section[] {
  const results = resultsOf(all, ({ parts }) => parts.includes("generation"));
  return shapesOf(results).map((shape) => {
    const own = results.filter(({ case: one }) => one.shape === shape);
    const perSecond = (value: number): string => value.toFixed(1);
    const body = [
      "New tokens a second of the whole batch, after the prompt:",
      comparison(own, quantities.tokens, perSecond, "advantage"),
      "Until the first new token:",
      comparison(own, quantities.prompt, seconds, "advantage"),
      "Peak resident memory of the process:",
      comparison(own, quantities.memory, gigabytes, "share"),
    ].join("\n\n");
    return { title: `Generation with ${shape}`, part: "generation", body };
  });
}

const seriesTitles: Readonly<Record<Series, string>> = {
  sequence: "tokens of a row",
  batch: "rows of a batch",
  rank: "rank",
  parameters: "parameters of the model",
};

function scalingSections({ cases: found }: Results): Section[] {
  const tables = Object.entries(scaling).flatMap(([series, points]) => {
    const rows = points.flatMap(({ value, one: { id } }) => {
      const result = found[id];
      if (!result) return [];
      const cell = (contestant: Contestant, quantity: Quantity, text: (value: number) => string): string =>
        spreadText(valuesOf(result, contestant, quantity), text);
      const number = value >= 1e6 ? `${Math.round(value / 1e6)} million` : String(value);
      return [
        [
          number,
          cell("graft", quantities.step, seconds),
          cell("torch-float32", quantities.step, seconds),
          spreadText(advantage(result, quantities.step, ["graft", "torch-float32"]), times),
          cell("graft", quantities.memory, gigabytes),
          cell("torch-float32", quantities.memory, gigabytes),
        ],
      ];
    });
    const head = [
      seriesTitles[series as Series],
      "Graft",
      "PyTorch float32",
      "speed",
      "Graft",
      "PyTorch float32",
    ];
    return rows.length === 0 ? [] : [markdown([head, ...rows])];
  });
  const intro =
    "Time of a step and peak memory, every linear layer, r 16, of smollm2-135m with 2 × 256 tokens, where nothing else is said:";
  return tables.length === 0
    ? []
    : [{ title: "What grows with what", part: "scaling", body: [intro, ...tables].join("\n\n") }];
}

/** Everything there are results of. */
export const sections = (results: Results): Section[] => [
  ...modelSections(results),
  ...epochSections(results),
  ...layerSections(results),
  ...generationSections(results),
  ...scalingSections(results),
];

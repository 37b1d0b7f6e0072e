import type { Cost, CostOptions, Figures, ModuleTree, SavedTower, TowerCost } from "../selection/index.ts";
import { baseDtypeFlag } from "./base-dtype.ts";
import { bytes, grouped } from "./describe.ts";
import { custom, FlagProblem, type FlagValues, number, single } from "./flags.ts";
import { table } from "./table.ts";

const atLeastOne = (n: number): string | undefined =>
  Number.isSafeInteger(n) && n >= 1 ? undefined : "must be a whole number of at least 1";

/** What a step is, as flags, for the cost. */
export const costFlags = {
  ...baseDtypeFlag,
  batchSize: number("Examples per step, for the cost. Default: 1.", {}, atLeastOne),
  sequenceLength: number(
    "Tokens per example, a picture's included, for the cost. Default: 512; for Florence-2 its picture's and 16.",
    {},
    atLeastOne,
  ),
  targetLength: number(
    "Tokens that the decoder of an encoder-decoder writes, for the cost. Default: as many as it reads; for Florence-2 64.",
    {},
    atLeastOne,
  ),
  labelFraction: number("Share of the (decoder's) tokens with a label, for the cost. Default: 1.", {}, (n) =>
    n > 0 && n <= 1 ? undefined : "must be above 0 and at most 1",
  ),
  imageSize: custom(
    "Pixels of a picture, one number or HEIGHTxWIDTH, for the cost. Default: the processor's.",
    { placeholder: "size" },
    readImageSize,
  ),
};

function readImageSize(texts: readonly string[]): readonly [height: number, width: number] {
  const text = single(texts);
  const [, height, width = height] = /^(\d+)(?:[x×](\d+))?$/i.exec(text.trim()) ?? [];
  const size = [Number(height), Number(width)] as const;
  if (!size.every((length) => Number.isSafeInteger(length) && length >= 1 && length <= 65_536))
    throw new FlagProblem(
      `must be a number of pixels, or HEIGHTxWIDTH, such as 768 or 480x640, got ${JSON.stringify(text)}`,
    );
  return size;
}

/**
 * The flags as options of `estimateCost`; the size of pictures that the flags don't name is read from the processor's
 * files beside the model, if there are any.
 */
export async function costOptions(
  values: FlagValues<typeof costFlags>,
  tree: ModuleTree,
  location: string,
): Promise<CostOptions> {
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  if (tree.modelType !== "florence2" || values.imageSize !== undefined) return given;
  const imageSize = await processorImageSize(location);
  return imageSize === undefined ? given : { ...given, imageSize };
}

/** The size to which the processor beside a model brings every picture. What makes it unreadable is the processor's to say. */
async function processorImageSize(location: string): Promise<[height: number, width: number] | undefined> {
  const { ImageProcessor } = await import("../processing/images/image-processor.ts");
  try {
    const { doCenterCrop, cropSize, doResize, size } = (await ImageProcessor.fromPretrained(location))
      .options;
    if (doCenterCrop) return [cropSize.height, cropSize.width];
    return doResize && "height" in size ? [size.height, size.width] : undefined;
  } catch {
    return undefined;
  }
}

/** The cost as `--json` prints it: every figure, also of all-linear. */
export const costJson = ({ allLinear, ...cost }: Cost) => ({ ...cost, allLinear });

/** The cost as lines for people: a table of this selection against all-linear, then what it saves. */
export function describeCost(cost: Cost): string {
  const { allLinear, batch, saved, lowestLayer, towers } = cost;
  const { share } = allLinear;
  const later = cost.laterEpochs;
  const { batchSize } = batch;
  const per = cost.per === "token" ? "token" : "example";
  const rows: (readonly [string, string, string, number])[] = [
    [
      "trainable parameters",
      grouped(cost.trainableParameters),
      grouped(allLinear.trainableParameters),
      share.trainableParameters,
    ],
    ["adapter file", bytes(cost.adapterBytes), bytes(allLinear.adapterBytes), share.adapterBytes],
    [
      "gradients and optimizer state",
      bytes(cost.gradientBytes + cost.optimizerBytes),
      bytes(allLinear.gradientBytes + allLinear.optimizerBytes),
      share.trainableParameters,
    ],
    [
      `forward per ${per}`,
      operations(cost.forwardFlops.total),
      operations(allLinear.forwardFlops.total),
      share.forwardFlops,
    ],
    [
      `backward per ${per}`,
      operations(cost.backwardFlops.total),
      operations(allLinear.backwardFlops.total),
      share.backwardFlops,
    ],
    ...(later.keptBytes > 0
      ? [
          [
            "both, in later epochs",
            operations(stepOf(cost)),
            operations(stepOf(allLinear)),
            stepOf(cost) / stepOf(allLinear),
          ] as const,
        ]
      : []),
    [
      `activations, ${exampleOf(cost)}`,
      bytes(cost.activationBytes),
      bytes(allLinear.activationBytes),
      share.activationBytes,
    ],
  ];
  const lines = [
    table(
      [
        { title: "cost" },
        { title: "selection", align: "right" },
        { title: "all-linear", align: "right" },
        { title: "share", align: "right" },
      ],
      rows.map(([title, ours, full, ratio]) => [title, ours, full, percent(ratio)]),
    ),
    `frozen weights: ${bytes(cost.frozenWeightBytes)} as stored; memory to train, about: ${bytes(cost.memory.totalBytes)}`,
  ];
  if (batch.imageSize !== null)
    lines.push(
      `an example: a picture of ${batch.imageSize.join(" × ")} pixels, ${batch.sequenceLength} tokens read, ${batch.targetLength} written`,
    );
  lines.push(...cost.problems.map((problem) => `beyond the model: ${problem}`));
  if (lowestLayer !== null)
    lines.push(
      `gradients go down to ${lowestLayer}: saves ${percent(saved.backwardShare)} of the backward pass; ` +
        (later.keptBytes > 0
          ? `later epochs take ${later.share.toFixed(2)}× of the first, with ${bytes(later.keptBytes)} kept of an example`
          : `${percent(saved.frozenForwardShare)} of the forward pass lies below`),
    );
  if (towers.length > 1) {
    lines.push("", towerTable(towers), "");
    const frozen = saved.towers.filter(({ backwardFlops }) => backwardFlops > 0);
    lines.push(...frozen.map((tower) => describeSaved(tower, batchSize)));
  }
  return lines.join("\n").trimEnd();
}

/** Operations of a step in the epochs after the first. */
const stepOf = ({ laterEpochs, backwardFlops }: Figures): number =>
  laterEpochs.forwardFlops.total + backwardFlops.total;

/** The batch in tokens; where there are pictures, an example is more than those. */
const exampleOf = ({ batch: { batchSize, sequenceLength, targetLength, imageSize } }: Cost): string => {
  if (imageSize !== null) return batchSize === 1 ? "1 example" : `${batchSize} examples`;
  const tokens =
    sequenceLength === targetLength ? `${sequenceLength}` : `(${sequenceLength} + ${targetLength})`;
  return `${batchSize} × ${tokens}`;
};

const describeSaved = (
  { path, backwardFlops, backwardShare, activationBytes }: SavedTower,
  batchSize: number,
): string =>
  `${path || "model"} is frozen: each example saves ${operations(backwardFlops)} (${percent(backwardShare)}) of all-linear's backward pass ` +
  `and ${bytes(activationBytes / batchSize)} of activations`;

/** Each tower on a row: operations of an example, activations of the batch. */
const towerTable = (towers: readonly TowerCost[]): string =>
  table(
    [
      { title: "tower" },
      ...["positions", "trainable", "forward", "backward", "activations"].map((title) => ({
        title,
        align: "right" as const,
      })),
      { title: "gradients" },
    ],
    towers.map(
      ({ path, positions, trainableParameters, forwardFlops, backwardFlops, activationBytes, ...reach }) => [
        path === "" ? "model" : path,
        positions === null ? "?" : grouped(positions),
        grouped(trainableParameters),
        forwardFlops === null ? "?" : operations(forwardFlops.total),
        backwardFlops === null ? "?" : operations(backwardFlops.total),
        activationBytes === null ? "?" : bytes(activationBytes),
        reachOf(path, reach),
      ],
    ),
  );

function reachOf(
  path: string,
  { lowestLayer, isCrossed }: Pick<TowerCost, "lowestLayer" | "isCrossed">,
): string {
  if (lowestLayer === null) return "none";
  if (isCrossed) return "go through";
  return lowestLayer === path ? "inside" : `down to ${lowestLayer.slice(path === "" ? 0 : path.length + 1)}`;
}

const percent = (share: number): string => {
  if (Number.isNaN(share)) return "–";
  const value = 100 * share;
  return `${value < 10 ? Number(value.toPrecision(2)) : value.toFixed(0)} %`;
};

/** `123456789` as "123 MFLOP". */
function operations(n: number): string {
  const units = ["", "k", "M", "G", "T", "P"];
  let unit = 0;
  let size = n;
  for (; size >= 1000 && unit < units.length - 1; unit++) size /= 1000;
  return `${size >= 100 || unit === 0 ? size.toFixed(0) : size.toPrecision(3)} ${units[unit]}FLOP`;
}

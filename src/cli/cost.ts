import type { Cost, TowerCost } from "../selection/index.ts";
import { bytes, grouped } from "./describe.ts";
import { table } from "./table.ts";

/** The cost as `--json` prints it: every figure, also of all-linear. */
export const costJson = ({ allLinear, ...cost }: Cost) => ({ ...cost, allLinear });

/** The cost as lines for people: a table of this selection against all-linear, then what it saves. */
export function describeCost(cost: Cost): string {
  const { allLinear, batch, saved, lowestLayer, towers } = cost;
  const { share } = allLinear;
  const { batchSize, sequenceLength } = batch;
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
    [
      `activations, ${batchSize} × ${sequenceLength}`,
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
    `frozen weights: ${bytes(cost.frozenWeightBytes)} as stored`,
  ];
  if (lowestLayer !== null)
    lines.push(
      `gradients go down to ${lowestLayer}: saves ${percent(saved.backwardShare)} of the backward pass; ` +
        `${percent(saved.frozenForwardShare)} of the forward pass lies below`,
    );
  if (towers.length > 1) lines.push(...towers.map(describeTower));
  return lines.join("\n");
}

function describeTower({
  path,
  forwardFlops,
  backwardFlops,
  positions,
  lowestLayer,
  isCrossed,
}: TowerCost): string {
  const name = path === "" ? "model" : path;
  if (forwardFlops === null || backwardFlops === null)
    return `  ${name}: not counted, its positions are not known`;
  const reach =
    lowestLayer === null
      ? "no gradient"
      : isCrossed
        ? "gradients go through to the tower before"
        : `gradients down to ${lowestLayer.slice(path === "" ? 0 : path.length + 1)}`;
  return `  ${name}: ${positions} positions, each ${operations(forwardFlops.total)} forward, ${operations(backwardFlops.total)} backward; ${reach}`;
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

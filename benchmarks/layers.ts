import { LoraConfig, moduleTreeOf } from "../src/adapters/index.ts";
import { estimateCost, selectTargets } from "../src/selection/index.ts";
import { layers, type TrainingCase } from "./cases.ts";
import { valuesOf } from "./compare.ts";
import type { Contestant } from "./contestants.ts";
import { quantities } from "./quantities.ts";
import type { Results } from "./results.ts";
import { selectionOf } from "./selections.ts";
import { emptyModel, type ShapeName, shapes } from "./shapes.ts";
import { fitLine } from "./statistics.ts";

/**
 * Floating point operations of a step whose frozen prefix was computed before, by `estimateCost`: the forward pass above
 * it, and the backward pass.
 */
export function laterStepFlops({ shape, selection, row, work }: TrainingCase): number {
  if (row.kind !== "text") throw new Error("Operations are counted for text.");
  const tree = moduleTreeOf(emptyModel(shapes[shape].config));
  const config = LoraConfig.fromJSON({ peft_type: "LORA", ...selectionOf(shape, selection).lora });
  const { forwardFlops, backwardFlops, saved } = estimateCost(
    tree,
    selectTargets(tree, config.toSelection()),
    {
      batchSize: work.batch,
      sequenceLength: row.sequence,
      labelFraction: work.labelFraction,
    },
  );
  const frozen = forwardFlops.total - forwardFlops.trained;
  const perToken = frozen * (1 - saved.frozenForwardShare) + forwardFlops.trained + backwardFlops.total;
  return perToken * work.batch * row.sequence;
}

/** Time of a step against the number of adapted layers. */
export type LayersFit = {
  readonly points: readonly {
    readonly count: number;
    readonly flops: number;
    readonly graft: number;
    readonly torch: number | undefined;
    /** By the operations, at the speed of the step with all layers adapted. */
    readonly predicted: number;
  }[];
  /** Seconds per layer, of the lines of least squares. */
  readonly slope: number;
  readonly predictedSlope: number;
  readonly torchSlope: number | undefined;
};

/** undefined if fewer than two of a shape's cases were measured. */
export function layersFit({ cases }: Results, shape: ShapeName): LayersFit | undefined {
  const measured = layers(shape).flatMap(({ count, one: { id } }) => {
    const result = cases[id];
    const graft = result && valuesOf(result, "graft", quantities.step)?.median;
    if (graft === undefined) return [];
    const torch = valuesOf(result!, "torch-float32" satisfies Contestant, quantities.step)?.median;
    return [{ count, graft, torch, flops: laterStepFlops(result!.case as TrainingCase) }];
  });
  return measured.length < 2 ? undefined : fitLayers(measured);
}

/** The prediction goes through the last point, which has the most layers. */
export function fitLayers(
  measured: readonly { count: number; graft: number; torch: number | undefined; flops: number }[],
): LayersFit {
  const whole = measured.at(-1)!;
  const points = measured.map((point) => ({
    ...point,
    predicted: (whole.graft * point.flops) / whole.flops,
  }));
  const slopeOf = (read: (point: (typeof points)[number]) => number | undefined): number =>
    fitLine(points.flatMap((point) => (read(point) === undefined ? [] : [[point.count, read(point)!]])))
      .slope;
  const compared = points.filter(({ torch }) => torch !== undefined).length > 1;
  return {
    points,
    slope: slopeOf(({ graft }) => graft),
    predictedSlope: slopeOf(({ predicted }) => predicted),
    torchSlope: compared ? slopeOf(({ torch }) => torch) : undefined,
  };
}

import type { Selection } from "../peft/selection.ts";
import type { ModuleTree } from "../tree.ts";
import { type Account, sumFlops } from "./account.ts";
import { Assumptions } from "./assumptions.ts";
import { heldBytes } from "./base-weights.ts";
import type { AllLinear, Cost, CostOptions, Figures, Share } from "./cost.ts";
import { layOut } from "./layout.ts";
import { memoryOf } from "./memory.ts";
import { figuresOf, type Outcome } from "./outcome.ts";
import type { Pass } from "./passes.ts";
import { replicatedTree } from "./replicated.ts";
import { perOf, problemsOf, settingOf, unitsOf } from "./setting.ts";
import { savedTowers, towerCosts } from "./towers.ts";
import { trainedByAllLinear, trainedBySelection } from "./trained.ts";

/** Bytes of a number. */
const dtypeBytes: Readonly<Record<string, number>> = {
  ...{ float64: 8, float32: 4, float16: 2, bfloat16: 2, float8_e4m3fn: 1, float8_e5m2: 1, int8: 1, uint8: 1 },
};

/**
 * What training a selection costs, from names and shapes alone: memory, operations of the forward and the backward pass,
 * and what the selection saves, also in comparison with adapters on every linear layer.
 *
 * A product of n positions with an (out, in) weight is 2·n·in·out operations. Backward it costs as much again for the
 * gradient of its input, if that depends on anything trained, and once more for the gradient of the weight, if that is
 * trained. Elementwise work is not counted. See docs/cost.md.
 */
export function estimateCost(given: ModuleTree, selection: Selection, options: CostOptions = {}): Cost {
  const ranges = selection.config.layerReplication ?? [];
  const tree = ranges.length === 0 ? given : replicatedTree(given, ranges);
  const layout = layOut(tree);
  const assumptions = new Assumptions();
  const setting = settingOf({ tree, selection, layout, assumptions }, options);
  const { batchSize, sequenceLength, targetLength, labelFraction } = setting;
  const trained = trainedBySelection(tree, selection, layout);
  const ours = figuresOf(trained, setting);
  assumptions.describe(setting, ours.known);
  const frozenParameters = selection.totalParameters - selection.trainableParameters;
  const { baseDtype = "fp32" } = options;
  const bytesPerWeight = options.bytesPerWeight ?? dtypeBytes[tree.config.dtype ?? "float32"] ?? 4;
  let whole: Outcome | undefined;
  const full = (): Outcome => {
    whole ??= figuresOf(trainedByAllLinear(tree, selection, layout), setting);
    return whole;
  };
  return {
    ...ours.figures,
    trainableFraction: selection.trainableParameters / selection.totalParameters,
    per: perOf(layout),
    frozenWeightBytes: frozenParameters * bytesPerWeight,
    memory: memoryOf(ours, heldBytes(tree, layout, trained, { frozenParameters, baseDtype })),
    lowestLayer: ours.passes.find(({ lowest }) => lowest !== undefined)?.lowest ?? null,
    saved: {
      ...savingsOf(ours.known, unitsOf(setting)),
      get towers() {
        return savedTowers(ours, full(), setting);
      },
    },
    towers: towerCosts(ours.passes, setting),
    batch: {
      ...{ batchSize, sequenceLength, targetLength, labelFraction },
      imageSize: layout.towers.some(({ kind }) => kind === "davit") ? (setting.imageSize ?? null) : null,
    },
    problems: problemsOf(setting),
    assumptions: assumptions.list,
    get allLinear(): AllLinear {
      const { figures } = full();
      return { ...figures, share: shareOf(ours.figures, figures) };
    },
  };
}

function savingsOf(passes: readonly Pass[], tokens: number): Omit<Cost["saved"], "towers"> {
  const sum = (pick: (account: Account) => number): number =>
    passes.reduce((total, { account }) => total + pick(account), 0);
  const stopped = sum((account) => account.stopped);
  const backward = sum((account) => sumFlops(account.backward));
  // LoRA's products aside, so that ranks do not shift the share
  const forward = sum((account) => sumFlops(account.forward) - account.forward.trained);
  return {
    activationGradientFlops: stopped / tokens,
    backwardShare: stopped + backward === 0 ? 0 : stopped / (stopped + backward),
    weightGradientFlops: sum((account) => account.weightGradients) / tokens,
    frozenForwardShare: forward === 0 ? 0 : sum((account) => account.frozenForward) / forward,
  };
}

function shareOf(ours: Figures, full: Figures): Share {
  const ratio = (a: number, b: number): number => (b === 0 ? Number.NaN : a / b);
  return {
    trainableParameters: ratio(ours.trainableParameters, full.trainableParameters),
    adapterBytes: ratio(ours.adapterBytes, full.adapterBytes),
    forwardFlops: ratio(ours.forwardFlops.total, full.forwardFlops.total),
    backwardFlops: ratio(ours.backwardFlops.total, full.backwardFlops.total),
    activationBytes: ratio(ours.activationBytes, full.activationBytes),
  };
}

import type { Selection } from "../peft/selection.ts";
import type { ModuleTree, TreeConfig } from "../tree.ts";
import { Assumptions } from "./assumptions.ts";
import type { AllLinear, Cost, CostOptions, Figures, FlopsByPart, Share, TowerCost } from "./cost.ts";
import { type Account, buffer, type Flops, Flow, sumFlops } from "./flow.ts";
import { type Layout, layOut, type Tower } from "./layout.ts";
import { type Feed, type Pass, passThrough } from "./passes.ts";
import { imagePositions, isSignal, type Positions, positionsBefore, samePositions } from "./positions.ts";
import { replicatedTree } from "./replicated.ts";
import { type TrainedUnits, trainedByAllLinear, trainedBySelection } from "./trained.ts";

/** Attention and MLP of a layer read the same input. */
const parallelTypes: ReadonlySet<string> = new Set([
  ...["gpt_neox", "gptj", "codegen", "falcon", "phi", "cohere", "cohere2", "persimmon"],
]);

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
  const { batchSize = 1, sequenceLength = 512, labelFraction = 1 } = options;
  const targetLength = options.targetLength ?? sequenceLength;
  const layout = layOut(tree);
  const assumptions = new Assumptions();
  const setting: Setting = {
    ...{ tree, selection, layout, assumptions, batchSize, sequenceLength, targetLength, labelFraction },
    ...(options.imageTokens !== undefined && { imageTokens: options.imageTokens }),
    ...(options.imageSize !== undefined && { imageSize: options.imageSize }),
    ...(options.bytesPerWeight !== undefined && { bytesPerWeight: options.bytesPerWeight }),
  };
  const ours = figuresOf(trainedBySelection(tree, selection, layout), setting);
  assumptions.describe(setting, ours.known);
  const frozenParameters = selection.totalParameters - selection.trainableParameters;
  const bytesPerWeight = options.bytesPerWeight ?? dtypeBytes[tree.config.dtype ?? "float32"] ?? 4;
  let full: AllLinear | undefined;
  const allLinear = (): AllLinear => {
    if (full === undefined) {
      const { figures } = figuresOf(trainedByAllLinear(tree, selection, layout), setting);
      full = { ...figures, share: shareOf(ours.figures, figures) };
    }
    return full;
  };
  return {
    ...ours.figures,
    trainableFraction: selection.trainableParameters / selection.totalParameters,
    per: layout.towers.every(isSignal) ? "example" : "token",
    frozenWeightBytes: frozenParameters * bytesPerWeight,
    lowestLayer: ours.passes.find(({ lowest }) => lowest !== undefined)?.lowest ?? null,
    saved: savingsOf(ours.known, tokensOf(setting)),
    towers: ours.passes.map((pass) => towerCost(pass, setting)),
    batch: { batchSize, sequenceLength, targetLength, labelFraction },
    assumptions: assumptions.list,
    get allLinear() {
      return allLinear();
    },
  };
}

/** Everything that both sides of the comparison have in common. */
export type Setting = {
  readonly tree: ModuleTree;
  readonly selection: Selection;
  readonly layout: Layout;
  readonly assumptions: Assumptions;
  readonly batchSize: number;
  readonly sequenceLength: number;
  readonly targetLength: number;
  readonly labelFraction: number;
  readonly imageTokens?: number;
  readonly imageSize?: number;
  readonly bytesPerWeight?: number;
};

type Outcome = {
  readonly figures: Figures;
  readonly passes: readonly Pass[];
  readonly known: readonly Pass[];
};

/** Sums are over the towers of which the number of positions is known. */
function figuresOf(trained: TrainedUnits, setting: Setting): Outcome {
  const { layout, selection, assumptions } = setting;
  const perToken = assumptions.expertsPerToken(setting);
  const flow = new Flow((unit) => trained.of(unit), perToken, selection.config.loraDropout > 0);
  const passes = passThrough(layout, flow, feedOf(trained, setting));
  const known = passes.filter(({ tower }) => positionsOf(tower, setting).count !== undefined);
  const tokens = tokensOf(setting);
  const total = (pick: (account: Account) => Flops): FlopsByPart =>
    perTokenOf(
      known.map(({ account }) => pick(account)),
      tokens,
    );
  return {
    passes,
    known,
    figures: {
      trainableParameters: trained.parameters,
      adapterParameters: trained.file.parameters,
      adapterBytes: trained.file.bytes,
      gradientBytes: 4 * trained.parameters,
      optimizerBytes: 8 * trained.parameters,
      forwardFlops: total(({ forward }) => forward),
      backwardFlops: total(({ backward }) => backward),
      activationBytes: known.reduce((sum, { account }) => sum + account.keptBytes, 0),
    },
  };
}

function feedOf(trained: TrainedUnits, setting: Setting): Feed {
  const { tree, layout, batchSize, targetLength, labelFraction, assumptions } = setting;
  const known = new Map<Tower, Positions>();
  return {
    examples: batchSize,
    labels: batchSize * targetLength * labelFraction,
    positionsOf(tower) {
      const positions = known.get(tower) ?? positionsOf(tower, setting);
      known.set(tower, positions);
      return positions;
    },
    headsOf(tower, width) {
      const heads = configOf(tower, tree).numAttentionHeads;
      return heads ?? assumptions.heads(width);
    },
    anglesOf(tower) {
      if (!layout.isRotary || isSignal(tower)) return undefined;
      const q = tower.stages[0]?.units.find(({ role }) => role === "q" || role === "qkv");
      if (q === undefined) return undefined;
      const width = q.role === "q" ? q.outputs : q.inputs;
      const size = width / this.headsOf(tower, width);
      // a cosine and a sine for each pair, and the row number, of 8 bytes
      return buffer(batchSize * (this.positionsOf(tower).count ?? 1) * (size + 2));
    },
    isParallel: parallelTypes.has(tree.modelType),
    isStageTrained: (stage) => trained.isStageTrained(stage),
  };
}

const configOf = (tower: Tower, { config }: ModuleTree): TreeConfig =>
  (isSignal(tower) ? config.visionConfig : config.textConfig) ?? config;

/** Tokens for text; for images what is known of them. */
function positionsOf(tower: Tower, setting: Setting): Positions {
  const { sequenceLength, targetLength, imageTokens, tree } = setting;
  if (!isSignal(tower)) {
    const crosses = tower.stages.some(({ units }) =>
      units.some(({ name }) => /encoder_attn|EncDec|cross/i.test(name)),
    );
    return samePositions(crosses ? targetLength : sequenceLength);
  }
  if (imageTokens !== undefined) return positionsBefore(tower, imageTokens);
  if (tower.positions !== undefined) return positionsBefore(tower, tower.positions);
  const size = setting.imageSize ?? configOf(tower, tree).imageSize;
  const isImage = [...tower.front, ...(tower.stages[0]?.units ?? [])].some(
    ({ convolution }) => convolution?.kernel.length === 2,
  );
  return size !== undefined && isImage ? imagePositions(tower, size) : { count: undefined, of: () => 1 };
}

/** What figures per token are divided by: tokens of text, or one example where there is no text. */
const tokensOf = (setting: Setting): number => {
  const { layout, batchSize, sequenceLength, targetLength } = setting;
  const text = layout.towers.filter((tower) => !isSignal(tower));
  if (text.length === 0) return batchSize;
  // the decoder's tokens where the encoder's input is sound
  return batchSize * (layout.towers.some(isSignal) && text.length === 1 ? targetLength : sequenceLength);
};

function perTokenOf(all: readonly Flops[], tokens: number): FlopsByPart {
  const sum = (part: keyof Flops): number => all.reduce((total, flops) => total + flops[part], 0) / tokens;
  const parts = {
    frozen: sum("frozen"),
    trained: sum("trained"),
    attention: sum("attention"),
    head: sum("head"),
  };
  return { total: sumFlops(parts), ...parts };
}

function savingsOf(passes: readonly Pass[], tokens: number): Cost["saved"] {
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

function towerCost({ tower, account, lowest, isCrossed }: Pass, setting: Setting): TowerCost {
  const positions = positionsOf(tower, setting).count;
  const known = positions !== undefined;
  const { batchSize } = setting;
  return {
    path: tower.path,
    layers: tower.stages.length,
    positions: positions ?? null,
    forwardFlops: known ? perTokenOf([account.forward], batchSize * positions) : null,
    backwardFlops: known ? perTokenOf([account.backward], batchSize * positions) : null,
    activationBytes: known ? account.keptBytes : null,
    lowestLayer: lowest ?? null,
    isCrossed,
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

import type { Selection } from "../peft/selection.ts";
import type { ModuleTree, TreeConfig } from "../tree.ts";
import type { Assumptions } from "./assumptions.ts";
import type { Cost, CostOptions } from "./cost.ts";
import { buffer } from "./flowing.ts";
import type { Layout, Tower } from "./layout.ts";
import type { Feed } from "./passes.ts";
import {
  imagePositions,
  isSignal,
  type Positions,
  positionsBefore,
  type Size,
  samePositions,
} from "./positions.ts";
import { isCrossAttention } from "./roles.ts";
import type { TrainedUnits } from "./trained.ts";

/** Attention and MLP of a layer read the same input. */
const parallelTypes: ReadonlySet<string> = new Set([
  ...["gpt_neox", "gptj", "codegen", "falcon", "phi", "cohere", "cohere2", "persimmon"],
]);

/** Norms stand behind the sums of a layer; dropout is the model's own. */
const bartTypes: ReadonlySet<string> = new Set(["bart", "florence2"]);

/** Florence-2's processor makes pictures of this size; its prompts and answers are short. */
const picture = { size: 768, promptLength: 16, targetLength: 64 };

/** Channels of a head, and of a group, in DaViT; height and width of its windows. */
const davit = { headSize: 32, window: 12 };

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
  readonly imageSize: Size | undefined;
  readonly modelDropout: boolean;
  readonly imageTokens?: number;
  readonly bytesPerWeight?: number;
  readonly flopsPerByte?: number;
};

/** The options, and what stands in for those that are missing. */
export function settingOf(
  parts: Pick<Setting, "tree" | "selection" | "layout" | "assumptions">,
  options: CostOptions,
): Setting {
  const { tree, layout, assumptions } = parts;
  const { batchSize = 1, labelFraction = 1, modelDropout = false, imageTokens } = options;
  const { bytesPerWeight, flopsPerByte } = options;
  const projector = layout.towers.find(({ kind }) => kind === "projector");
  const setting: Setting = {
    ...parts,
    ...{ batchSize, labelFraction, modelDropout, sequenceLength: 512, targetLength: 512 },
    imageSize: imageSizeOf(options, tree, layout, assumptions),
    ...(imageTokens !== undefined && { imageTokens }),
    ...(bytesPerWeight !== undefined && { bytesPerWeight }),
    ...(flopsPerByte !== undefined && { flopsPerByte }),
  };
  const tokens = projector && positionsOf(projector, setting).count;
  const sequenceLength =
    options.sequenceLength ?? (tokens === undefined ? 512 : tokens + picture.promptLength);
  const targetLength = options.targetLength ?? (tokens === undefined ? sequenceLength : picture.targetLength);
  if (tokens !== undefined) {
    if (options.sequenceLength === undefined)
      assumptions.add(
        `The encoder reads ${tokens} tokens of the picture and ${picture.promptLength} of the prompt.`,
      );
    if (options.targetLength === undefined) assumptions.add(`The decoder writes ${targetLength} tokens.`);
  }
  return { ...setting, sequenceLength, targetLength };
}

function imageSizeOf(
  { imageSize: asked, imageTokens }: CostOptions,
  tree: ModuleTree,
  { towers }: Layout,
  assumptions: Assumptions,
): Size | undefined {
  const square = (length: number): Size => [length, length];
  if (typeof asked === "number") return square(asked);
  if (asked !== undefined) return asked;
  const tower = towers.find(({ kind }) => kind === "davit");
  const known = (tree.config.visionConfig ?? tree.config).imageSize ?? tree.config.imageSize;
  if (tower === undefined) return known === undefined ? undefined : square(known);
  if (imageTokens !== undefined) {
    const strides = tower.stages.flatMap(({ units }) =>
      units.map(({ convolution }) => convolution?.stride[0] ?? 1),
    );
    return square(Math.round(Math.sqrt(imageTokens - 1)) * strides.reduce((a, b) => a * b, 1));
  }
  if (known !== undefined) return square(known);
  assumptions.add(`Pictures are ${picture.size} × ${picture.size} pixels: give imageSize for others.`);
  return square(picture.size);
}

/** What the model cannot read of what the figures are for: a picture too large or too small, more tokens than it has places for. */
export function problemsOf(setting: Setting): string[] {
  const { layout, tree, imageSize } = setting;
  const size = imageSize?.join(" × ");
  return layout.towers.flatMap((tower) => {
    if (tower.kind === "davit") {
      const isKnown = positionsOf(tower, setting).count !== undefined;
      return isKnown ? [] : [`Of a picture of ${size} pixels nothing is left behind ${tower.path}.`];
    }
    if (tower.kind === "projector") {
      const vision = layout.towers.find(({ kind }) => kind === "davit");
      const map = vision && positionsOf(vision, setting).map;
      const places = Math.min(...tower.front.map(({ inputs }) => inputs));
      return map === undefined || Math.max(...map) <= places
        ? []
        : [
            `A picture of ${size} pixels has a feature map of ${map.join(" × ")} places; the model knows ${places} rows and columns.`,
          ];
    }
    // the first two rows of BART's table of positions are never used
    const rows =
      bartTypes.has(tree.modelType) && tower.front.find(({ name }) => /\.embed_positions$/.test(name));
    const count = positionsOf(tower, setting).count ?? 0;
    return rows && count > rows.inputs - 2
      ? [`${tower.path} knows ${rows.inputs - 2} positions; the figures are for ${count}.`]
      : [];
  });
}

/** What is fed to the model, and how its towers read it. */
export function feedOf(trained: TrainedUnits, setting: Setting): Feed {
  const { tree, layout, batchSize, targetLength, labelFraction, assumptions } = setting;
  const known = new Map<Tower, Positions>();
  const isBart = bartTypes.has(tree.modelType);
  return {
    examples: batchSize,
    labels: batchSize * targetLength * labelFraction,
    positionsOf(tower) {
      const positions = known.get(tower) ?? positionsOf(tower, setting);
      known.set(tower, positions);
      return positions;
    },
    headsOf(tower, width) {
      const { numAttentionHeads, encoderAttentionHeads, decoderAttentionHeads } = configOf(tower, tree);
      const own = hasCrossAttention(tower) ? decoderAttentionHeads : encoderAttentionHeads;
      return own ?? numAttentionHeads ?? assumptions.heads(width);
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
    windowOf(tower) {
      const { windowSize } = configOf(tower, tree);
      if (windowSize === undefined)
        assumptions.add(`DaViT's windows are ${davit.window} × ${davit.window}: config.json does not say.`);
      return windowSize ?? davit.window;
    },
    stageHeadsOf: (tower, stage, channels) =>
      configOf(tower, tree).stageHeads?.[stage] ?? assumptions.davitParts(channels, davit.headSize),
    stageGroupsOf: (tower, stage, channels) =>
      configOf(tower, tree).stageGroups?.[stage] ?? assumptions.davitParts(channels, davit.headSize),
    dropoutOf(tower) {
      if (!isBart || !setting.modelDropout) return { hidden: 0, attention: 0, activation: 0 };
      const { dropout, attentionDropout = 0, activationDropout = 0 } = configOf(tower, tree);
      if (dropout === undefined)
        assumptions.add("The model drops hidden states, not attention weights: config.json does not say.");
      return { hidden: dropout ?? 0.1, attention: attentionDropout, activation: activationDropout };
    },
    dropsPaths: setting.modelDropout,
    isParallel: parallelTypes.has(tree.modelType),
    isPostNorm: (tower) => isBart && !isSignal(tower),
    isStageTrained: (stage) => trained.isStageTrained(stage),
    trainedOf: (name) => trained.ofNorm(name),
  };
}

const configOf = (tower: Tower, { config }: ModuleTree): TreeConfig =>
  (isSignal(tower) ? config.visionConfig : config.textConfig) ?? config;

const hasCrossAttention = ({ stages }: Tower): boolean =>
  stages.some(({ units }) => units.some(({ name }) => isCrossAttention(name)));

/** Tokens for text; for images what is known of them. */
export function positionsOf(tower: Tower, setting: Setting): Positions {
  const { sequenceLength, targetLength, imageTokens, imageSize, layout } = setting;
  if (tower.kind === "projector") {
    const vision = layout.towers.find(({ kind }) => kind === "davit");
    const places = vision && positionsOf(vision, setting).count;
    // the mean of all places is one more
    return places === undefined ? unknown : samePositions(1 + places);
  }
  if (!isSignal(tower)) return samePositions(hasCrossAttention(tower) ? targetLength : sequenceLength);
  if (tower.kind === "davit") return imageSize === undefined ? unknown : imagePositions(tower, imageSize);
  if (imageTokens !== undefined) return positionsBefore(tower, imageTokens);
  if (tower.positions !== undefined) return positionsBefore(tower, tower.positions);
  const isImage = [...tower.front, ...(tower.stages[0]?.units ?? [])].some(
    ({ convolution }) => convolution?.kernel.length === 2,
  );
  return imageSize !== undefined && isImage ? imagePositions(tower, imageSize) : unknown;
}

const unknown: Positions = { count: undefined, of: () => 1 };

/** Examples where there are pictures or sound, else tokens of the (encoder's) text: what operations are divided by. */
export const perOf = ({ towers }: Layout): Cost["per"] => (towers.some(isSignal) ? "example" : "token");

export const unitsOf = (setting: Setting): number =>
  setting.batchSize * (perOf(setting.layout) === "example" ? 1 : setting.sequenceLength);

import type { Selection } from "../peft/selection.ts";
import type { ModuleTree } from "../tree.ts";
import { sumFlops } from "./account.ts";
import type { SavedTower, TowerCost } from "./cost.ts";
import { flopsPer, type Outcome } from "./outcome.ts";
import type { Pass } from "./passes.ts";
import { positionsOf, type Setting } from "./setting.ts";

/** Each tower by itself, in the order of execution. */
export function towerCosts(passes: readonly Pass[], setting: Setting): TowerCost[] {
  const { tree, selection, batchSize } = setting;
  const sizes = sizesOf(
    tree,
    selection,
    passes.map(({ tower }) => tower.path),
  );
  return passes.map(({ tower, account, lowest, isCrossed }) => {
    const positions = positionsOf(tower, setting).count;
    const isKnown = positions !== undefined;
    return {
      path: tower.path,
      layers: tower.stages.length,
      ...sizes.get(tower.path)!,
      positions: positions ?? null,
      forwardFlops: isKnown ? flopsPer([account.forward], batchSize) : null,
      backwardFlops: isKnown ? flopsPer([account.backward], batchSize) : null,
      activationBytes: isKnown ? account.keptBytes : null,
      lowestLayer: lowest ?? null,
      isCrossed,
    };
  });
}

/** What adapters on every linear layer spend in towers that no gradient goes into here. */
export function savedTowers(ours: Outcome, full: Outcome, { batchSize }: Setting): SavedTower[] {
  const backward = full.known.reduce((sum, { account }) => sum + sumFlops(account.backward), 0);
  return full.known.flatMap(({ tower, account }, i) => {
    const own = ours.known[i]!;
    if (own.lowest !== undefined || own.isCrossed) return [];
    const spent = sumFlops(account.backward);
    return {
      path: tower.path,
      backwardFlops: spent / batchSize,
      backwardShare: spent / backward,
      activationBytes: account.keptBytes,
      activationShare: account.keptBytes / full.figures.activationBytes,
    };
  });
}

type Sizes = Pick<TowerCost, "parameters" | "trainableParameters">;

/** Parameters below each path, and how many of them are trained. */
function sizesOf(tree: ModuleTree, selection: Selection, paths: readonly string[]): Map<string, Sizes> {
  const { targets, targetParameters, modulesToSave, config } = selection;
  const sizes = new Map(paths.map((path) => [path, { parameters: 0, trainableParameters: 0 }]));
  // the innermost path first
  const inner = paths.toSorted((a, b) => b.length - a.length);
  const sizeFor = (name: string): { parameters: number; trainableParameters: number } | undefined => {
    const path = inner.find((own) => own === "" || name === own || name.startsWith(`${own}.`));
    return path === undefined ? undefined : sizes.get(path);
  };
  const tied = new Set(tree.tiedWeights.map(([path]) => path));
  const isWhole = (name: string): boolean =>
    modulesToSave.some((saved) => name === saved || name.startsWith(`${saved}.`));
  const adapted = new Set(config.bias === "lora_only" ? targets.map(({ name }) => name) : []);
  for (const { name, parameters } of tree.modules) {
    const size = parameters.length === 0 ? undefined : sizeFor(name);
    if (size === undefined) continue;
    const isSaved = modulesToSave.length > 0 && isWhole(name);
    for (const [own, shape] of parameters) {
      const count = shape.reduce((a, b) => a * b, 1);
      if (tied.size === 0 || !tied.has(`${name}.${own}`)) size.parameters += count;
      const isBias = own === "bias" && (config.bias === "all" || adapted.has(name));
      if (isSaved || isBias) size.trainableParameters += count;
    }
  }
  for (const { name, parameters } of [...targets, ...targetParameters]) {
    const size = sizeFor(name);
    if (size !== undefined) size.trainableParameters += parameters;
  }
  return sizes;
}

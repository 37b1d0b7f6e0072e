import type { SelectionError } from "../../errors.ts";
import { failure, Warnings } from "../failure.ts";
import { allLinearNames, isAllLinear } from "../peft/all-linear.ts";
import { resolveConfig } from "../peft/config.ts";
import {
  mambaForbiddenLeaves,
  minTargetModulesForShrinking,
  moeRenames,
  seqClsHeadNames,
} from "../peft/defaults.ts";
import { type Listing, LiveTree, listingOf } from "../peft/live-tree.ts";
import { renameExperts } from "../peft/moe.ts";
import { isTruthy, type ResolvedConfig, type SelectionConfig } from "../peft/options.ts";
import { eachTargetedParameter } from "../peft/parameters.ts";
import { Patterns } from "../peft/patterns.ts";
import { replicateLayers } from "../peft/replicate.ts";
import { shrinkTargets } from "../peft/shrink.ts";
import { namedModules } from "../peft/traverse.ts";
import { checkTying, isTiedName } from "../peft/tying.ts";
import { leafOf } from "../python.ts";
import { adaptableKinds, type ModuleKind, type ModuleTree } from "../tree.ts";
import { defaultTargetsAt } from "./default-targets.ts";
import { olderMatcher } from "./matcher.ts";
import { type RankAndAlpha, rankLookup } from "./ranks.ts";
import type { Rules } from "./rules.ts";
import type { PeftRelease } from "./version.ts";

/** What a release chooses: rank and alpha of each module, in order, then of each parameter. */
export type Choice = ReadonlyMap<string, RankAndAlpha>;

/**
 * The modules and parameters that a release of PEFT adapts, by its rules.
 * @throws SelectionError where that release fails, as far as choosing goes; shapes and dtypes are not looked at.
 */
export function chooseByRules(
  tree: ModuleTree,
  given: SelectionConfig,
  rules: Rules,
  release: PeftRelease,
): Choice {
  const config = resolveOlder(given, rules);
  const warnings = new Warnings();
  const patterns = new Patterns(warnings);
  const live = new LiveTree(tree);
  let modules: Listing = live;
  // until 0.15 the head of a classifier was added to modulesToSave after the adapter had been injected
  if (config.taskType === "SEQ_CLS" && rules.saved === "part")
    config.modulesToSave = [...(config.modulesToSave ?? []), "classifier", "score"];
  if (rules.experts !== "kept") {
    const { targetModules } = config;
    const isRenamed = Object.hasOwn(moeRenames, tree.modelType);
    // 0.19 made a set of the string, which is a set of its letters
    if (isRenamed && rules.experts === "lists" && typeof targetModules === "string")
      config.targetModules = new Set(targetModules);
    renameExperts(config, tree, live.root, modules, patterns);
  }
  if (rules.ties && config.ensureWeightTying) checkTying(config, tree, live.root, patterns, warnings);
  takeDefaults(config, tree, release);
  if (config.layerReplication !== null && config.layerReplication.length > 0) {
    replicateLayers(live.root, config.layerReplication);
    modules = listingOf(namedModules(live.root, { duplicates: false }));
  }
  if (rules.allLinear !== "none" && isAllLinear(config.targetModules))
    config.targetModules =
      rules.allLinear === "names"
        ? allLinearNames(modules, tree, config)
        : allLinearLeaves(modules, tree, config, rules);
  condense(config, rules, modules.names);
  return choose(tree, config, rules, patterns, live, modules);
}

function choose(
  tree: ModuleTree,
  config: ResolvedConfig,
  rules: Rules,
  patterns: Patterns,
  live: LiveTree,
  modules: Listing,
): Choice {
  const isTaken = olderMatcher(config, rules, patterns);
  const rankOf = rankLookup(config, rules, patterns);
  const refusesMamba = rules.mamba.includes(tree.modelType);
  const choice = new Map<string, RankAndAlpha>();
  const postponed: string[] = [];
  modules.names.forEach((name, index) => {
    if (name === "" && rules.skipsRoot) return;
    if (isTiedName(config.targetModulesToTie, name)) postponed.push(name);
    else if (isTaken(name)) {
      const kind = modules.kindAt(index) as ModuleKind;
      if (!adaptableKinds.has(kind) || rules.missingKinds.includes(kind)) throw unsupported(name);
      if (refusesMamba && mambaForbiddenLeaves.has(leafOf(name))) throw mambaRefusal(name);
      choice.set(name, rankOf(name));
    }
  });
  if (rules.parameters && isTruthy(config.targetParameters))
    eachTargetedParameter(live.root, config.targetParameters!, ({ key }) => {
      choice.set(key, rankOf(key));
    });
  for (const name of postponed) choice.set(name, rankOf(name));
  if (choice.size === 0)
    throw failure("inject", "ValueError", "no-match", "It would find none of the target modules.");
  return choice;
}

/** Defaults and checks; the check that changed is made here, in its older form. */
function resolveOlder(given: SelectionConfig, rules: Rules): ResolvedConfig {
  const { layersPattern = null, layersToTransform: layers = null } = given;
  const isNone = rules.patternNeedsLayers === "not-null" ? layers === null : isFalsy(layers);
  if (rules.patternNeedsLayers !== "never" && isTruthy(layersPattern) && isNone)
    throw failure(
      "config",
      "ValueError",
      "layers-pattern-without-layers",
      "layersPattern needs layersToTransform.",
    );
  const isIgnored = rules.patternNeedsLayers === "never" && layers === null;
  return resolveConfig(isIgnored ? { ...given, layersPattern: null } : given, new Warnings());
}

const isFalsy = (layers: SelectionConfig["layersToTransform"]): boolean =>
  layers === null || layers === 0 || (Array.isArray(layers) && layers.length === 0);

function takeDefaults(config: ResolvedConfig, { modelType }: ModuleTree, release: PeftRelease): void {
  if (config.targetModules !== null) return;
  const targets = defaultTargetsAt(modelType, release);
  if (targets !== undefined) config.targetModules = typeof targets === "string" ? targets : new Set(targets);
  else if (!isTruthy(config.targetParameters))
    throw failure(
      "inject",
      "ValueError",
      "no-default-targets",
      `It has no default target modules for model type "${modelType}".`,
    );
}

/** Last name parts of linear layers, without the full name of the output layer. */
function allLinearLeaves(
  modules: Listing,
  tree: ModuleTree,
  config: ResolvedConfig,
  rules: Rules,
): Set<string> {
  if (!tree.isPretrainedModel)
    throw failure(
      "inject",
      "ValueError",
      "all-linear-needs-transformers",
      "all-linear needs a transformers model.",
    );
  const leaves = new Set<string>();
  modules.names.forEach((name, index) => {
    const kind = modules.kindAt(index);
    if (kind === "linear" || kind === "conv1d_hf") leaves.add(leafOf(name));
  });
  if (tree.outputEmbeddings !== null) leaves.delete(tree.outputEmbeddings);
  else if (rules.allLinear === "leaves-no-head" && config.taskType === "SEQ_CLS") {
    const head = seqClsHeadNames.find((candidate) => tree.seqClsHeads.includes(candidate));
    if (head !== undefined) leaves.delete(head);
  }
  return leaves;
}

function condense(config: ResolvedConfig, rules: Rules, names: readonly string[]): void {
  const { targetModules } = config;
  if (rules.condense === "never" || !(targetModules instanceof Set)) return;
  if (targetModules.size < minTargetModulesForShrinking) return;
  // modules whose names end like an entry, dot or not, did not count as others in 0.13.0 and 0.13.1
  const others =
    rules.condense === "tail"
      ? names
      : names.filter((name) => ![...targetModules].some((entry) => name.endsWith(entry)));
  config.targetModules = shrinkTargets(targetModules, others);
}

const mambaRefusal = (name: string): SelectionError =>
  failure("inject", "ValueError", "mamba-incompatible", `It refuses "${name}" of a Mamba model.`, {
    module: name,
  });

const unsupported = (name: string): SelectionError =>
  failure("inject", "ValueError", "unsupported-module", `It cannot adapt "${name}".`, { module: name });

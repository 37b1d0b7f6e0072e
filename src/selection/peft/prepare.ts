import { failure, type Warnings } from "../failure.ts";
import type { ModuleTree } from "../tree.ts";
import { allLinearNames, isAllLinear } from "./all-linear.ts";
import { resolveConfig } from "./config.ts";
import {
  defaultTargetModules,
  dummyTargetModules,
  headsByTaskType,
  minTargetModulesForShrinking,
} from "./defaults.ts";
import { emptyListing, type Listing, LiveTree, listingOf } from "./live-tree.ts";
import { renameExperts } from "./moe.ts";
import { isTruthy, type ResolvedConfig, type SelectionConfig } from "./options.ts";
import { Patterns } from "./patterns.ts";
import { replicateLayers } from "./replicate.ts";
import { shrinkTargets } from "./shrink.ts";
import { namedModules } from "./traverse.ts";
import { checkTying } from "./tying.ts";

/** What became of `targetModules` and `modulesToSave` before the first name was matched. */
export type Steps = {
  /** `targetModules` as configured. */
  readonly given: ResolvedConfig["targetModules"];
  /** Targets that became parameters of stacked experts; null where the model type has none. */
  readonly moved: ReadonlyMap<string, string> | null;
  /** The targets are the defaults of the model type. */
  readonly isDefault: boolean;
  readonly isAllLinear: boolean;
  /** A list, after all of the above, that was condensed; else null. */
  readonly condensed: ReadonlySet<string> | null;
  /** Heads that the task type added to `modulesToSave`. */
  readonly heads: readonly string[];
  /** Layers were replicated, so the names are not the tree's. */
  readonly isReplicated: boolean;
};

/** A configuration and a model, ready for matching. */
export type Preparation = {
  readonly config: ResolvedConfig;
  readonly patterns: Patterns;
  readonly live: LiveTree;
  /** The modules that are matched. */
  readonly modules: Listing;
  /** The targets are PEFT's word for nothing at all. */
  readonly isDummy: boolean;
  readonly steps: Steps;
};

/**
 * Everything that PEFT does before it matches the first name: heads that are saved, experts that were renamed, tied
 * layers, default targets, replicated layers, "all-linear", long lists.
 * @throws SelectionError where PEFT fails on the way.
 * Source: PEFT 0.21 `LoraConfig.__post_init__`, `BaseTuner.inject_adapter`.
 */
export function prepare(tree: ModuleTree, given: SelectionConfig, warnings: Warnings): Preparation {
  const config = resolveConfig(given, warnings);
  const { targetModules: configured } = config;
  const patterns = new Patterns(warnings);
  const live = new LiveTree(tree);
  if (config.modulesToSave !== null || config.taskType !== null || config.bias === "all")
    live.attachBuffers();
  if (config.initLoraWeights === "eva")
    warnings.add("eva-low-cpu-mem", "EVA initialisation needs less memory with PEFT's low_cpu_mem_usage.");
  const heads = config.taskType === "SEQ_CLS" ? addHeads(config) : [];

  let modules: Listing = live;
  const moved = renameExperts(config, tree, live.root, modules, patterns);
  checkTying(config, tree, live.root, patterns, warnings);
  const isDefault = takeDefaults(config, tree);
  const isReplicated = config.layerReplication !== null && config.layerReplication.length > 0;
  if (isReplicated) {
    replicateLayers(live.root, config.layerReplication!);
    modules = listingOf(namedModules(live.root, { duplicates: false }));
  }
  const isDummy = config.targetModules === dummyTargetModules;
  if (isDummy) modules = emptyListing;
  const expands = isAllLinear(config.targetModules);
  if (expands) config.targetModules = allLinearNames(modules, tree, config);
  let condensed: ReadonlySet<string> | null = null;
  if (config.targetModules instanceof Set && config.targetModules.size >= minTargetModulesForShrinking) {
    const long = config.targetModules;
    config.targetModules = shrinkTargets(long, modules.names);
    if (config.targetModules.size < long.size) condensed = long;
  }
  const isAll = expands || (isAllLinear(configured) && moved !== null);
  const steps: Steps = {
    given: configured,
    moved,
    isDefault,
    isAllLinear: isAll,
    condensed,
    heads,
    isReplicated,
  };
  return { config, patterns, live, modules, isDummy, steps };
}

/** A classification task trains its head as a whole. */
export function addHeads(config: ResolvedConfig): readonly string[] {
  const heads = headsByTaskType[config.taskType ?? ""]!;
  if (config.modulesToSave === null) config.modulesToSave = [...heads];
  else if (Array.isArray(config.modulesToSave)) config.modulesToSave.push(...heads);
  else
    throw failure(
      "inject",
      "AttributeError",
      "python-internal",
      `modulesToSave must be a list, so that taskType ${config.taskType} can add its head.`,
    );
  return heads;
}

/** @returns whether there are defaults, and they were needed. */
function takeDefaults(config: ResolvedConfig, { modelType }: ModuleTree): boolean {
  if (config.targetModules !== null) return false;
  const targets = Object.hasOwn(defaultTargetModules, modelType) ? defaultTargetModules[modelType]! : null;
  if (targets !== null) config.targetModules = typeof targets === "string" ? targets : new Set(targets);
  else if (!isTruthy(config.targetParameters))
    throw failure(
      "inject",
      "ValueError",
      "no-default-targets",
      `There are no default target modules for model type "${modelType}". Set targetModules (for example ` +
        '"all-linear") or targetParameters.',
      { modelType },
    );
  return targets !== null;
}

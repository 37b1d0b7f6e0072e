/**
 * Which modules of a model a LoRA configuration adapts, and why: PEFT's rules on module names and shapes alone. Runs
 * in a browser, loads no weights.
 *
 *     const tree = parseSkeleton(json);
 *     const { targets, trainableParameters } = selectTargets(tree, { r: 8, targetModules: ["q_proj", "v_proj"] });
 */

export {
  type AllLinear,
  type Cost,
  type CostOptions,
  estimateCost,
  type Figures,
  type FlopsByPart,
  type LaterEpochs,
  type MemoryCost,
  type SavedTower,
  type Share,
  type TowerCost,
} from "./cost/index.ts";
export {
  type CompiledLike,
  type DifferingTarget,
  diffSelections,
  Explainer,
  type Explanation,
  explain,
  type FoldedNames,
  foldNames,
  GroupExplainer,
  type LintWarning,
  lintSelection,
  type MatrixRow,
  makeExplainer,
  matrixOf,
  mergeWarnings,
  type NearMiss,
  numberRanges,
  type Rule,
  type SelectionDiff,
  type SelectionMatrix,
  structureOf,
  type TakingEntry,
  type TargetValues,
} from "./explain/index.ts";
export type { SelectionWarning, Stage } from "./failure.ts";
export {
  type CompiledEntry,
  type CompiledGroup,
  type CompiledSelection,
  compileSelection,
  type Entry,
  type EntryKind,
  type GroupedSelection,
  type GroupSpec,
  type GroupWarning,
  type LayersSpec,
  type LayerValue,
  parseEntry,
} from "./groups/index.ts";
export {
  type InferOptions,
  type InferredTree,
  type InferWarning,
  inferTree,
  type TensorInfo,
} from "./infer/index.ts";
export { taskTypes } from "./peft/config.ts";
export { defaultTargetModules } from "./peft/defaults.ts";
export type { LayerHit } from "./peft/layer-filter.ts";
export type { LoraLayerName } from "./peft/lora-plan.ts";
export { type Matcher, type MatchResult, makeMatcher } from "./peft/match.ts";
export {
  type Names,
  type PatternTable,
  type ResolvedConfig,
  type SelectionConfig,
  type TaskType,
  Tuple,
} from "./peft/options.ts";
export { describeReason, type TargetReason } from "./peft/reason.ts";
export { selectTargets } from "./peft/select.ts";
export type { Selection } from "./peft/selection.ts";
export type { Target } from "./peft/target.ts";
export {
  type Deeper,
  type Form as SynthesisForm,
  type RankAndAlpha,
  type Synthesis,
  type SynthesizeOptions,
  synthesize,
} from "./synthesize/index.ts";
export {
  type ModuleExtra,
  type ModuleInfo,
  type ModuleKind,
  type ModuleTree,
  moduleKinds,
  type NamedShape,
  parseSkeleton,
  parseTreeConfig,
  type TreeConfig,
} from "./tree.ts";
export {
  type ChangedRank,
  type RuleChange,
  ruleChanges,
  type VersionDifferences,
  versionDifferences,
} from "./versions/index.ts";

/**
 * Which modules of a model a LoRA configuration adapts, and why: PEFT's rules on module names and shapes alone. Runs
 * in a browser, loads no weights.
 *
 *     const tree = parseSkeleton(json);
 *     const { targets, trainableParameters } = selectTargets(tree, { r: 8, targetModules: ["q_proj", "v_proj"] });
 */
export { taskTypes } from "./config.ts";
export { defaultTargetModules } from "./defaults.ts";
export type { SelectionWarning, Stage } from "./failure.ts";
export type { LayerHit } from "./layer-filter.ts";
export type { LoraLayerName } from "./lora-plan.ts";
export { type Matcher, type MatchResult, makeMatcher } from "./match.ts";
export {
  type Names,
  type PatternTable,
  type ResolvedConfig,
  type SelectionConfig,
  type TaskType,
  Tuple,
} from "./options.ts";
export { describeReason, type TargetReason } from "./reason.ts";
export { selectTargets } from "./select.ts";
export type { Selection } from "./selection.ts";
export type { Target } from "./target.ts";
export {
  type ModuleExtra,
  type ModuleInfo,
  type ModuleKind,
  type ModuleTree,
  moduleKinds,
  type NamedShape,
  parseSkeleton,
  type TreeConfig,
} from "./tree.ts";

/**
 * Which modules of a model a LoRA configuration adapts, and why: PEFT's rules on module names and shapes alone. Runs
 * in a browser, loads no weights.
 *
 *     const tree = parseSkeleton(json);
 *     const { targets, trainableParameters } = selectTargets(tree, { r: 8, targetModules: ["q_proj", "v_proj"] });
 */

export type { SelectionWarning, Stage } from "./failure.ts";
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

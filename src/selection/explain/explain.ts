import type { SelectionConfig } from "../peft/options.ts";
import type { ModuleTree } from "../tree.ts";
import { type CompiledLike, isCompiled } from "./compiled.ts";
import { Explainer } from "./explainer.ts";
import type { Explanation } from "./explanation.ts";
import { GroupExplainer } from "./group-explainer.ts";

/**
 * Why modules are adapted or not: the rule that took each, or the first rule that did not and how near it was.
 * Without names all modules, in the model's order, then the parameters that are adapted.
 *
 *     explain(tree, { targetModules: ["q_proj"], layersToTransform: [4, 5] }, ["model.layers.3.self_attn.q_proj"]);
 *     // [{ selected: false, rule: "layer", reason: '"q_proj" matched; layer index 3 (model.layers.3) is not in [4, 5]', … }]
 *
 * Verdicts are those of `selectTargets`. Where that throws, every explanation carries its error as `failure`.
 * @param config PEFT's options, or a compiled selection of groups, whose groups and entries are then named.
 * @param names full names of modules or parameters, or globs such as `*layers.3*`.
 * @throws SelectionError `unknown-module` for names that the model has not, all of them, with the nearest.
 */
export function explain(
  tree: ModuleTree,
  config: SelectionConfig | CompiledLike,
  names?: Iterable<string>,
): Explanation[] {
  const explainer = makeExplainer(tree, config);
  return names === undefined ? explainer.all() : explainer.asked(names);
}

/** The same, for modules one by one. */
export const makeExplainer = (
  tree: ModuleTree,
  config: SelectionConfig | CompiledLike,
): Explainer | GroupExplainer =>
  isCompiled(config) ? new GroupExplainer(tree, config) : new Explainer(tree, config);

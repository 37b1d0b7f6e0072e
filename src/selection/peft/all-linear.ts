import type { ModuleTree } from "../tree.ts";
import { seqClsHeadNames } from "./defaults.ts";
import type { Listing } from "./live-tree.ts";
import type { ResolvedConfig } from "./options.ts";

/** Is this the shorthand for every linear layer? Any case counts, but only as a string. */
export const isAllLinear = (targets: ResolvedConfig["targetModules"]): boolean =>
  typeof targets === "string" && targets.toLowerCase() === "all-linear";

/**
 * Full names of all Linear and Conv1D modules, without the output head: the output embedding, or, where there is
 * none and the task is SEQ_CLS, the top-level `score` or else `classifier`.
 * Source: PEFT 0.21 `_maybe_include_all_linear_layers`.
 */
export function allLinearNames(
  modules: Pick<Listing, "names" | "kindAt">,
  tree: ModuleTree,
  config: Pick<ResolvedConfig, "taskType">,
): Set<string> {
  const names = new Set<string>();
  modules.names.forEach((name, index) => {
    const kind = modules.kindAt(index);
    if (kind === "linear" || kind === "conv1d_hf") names.add(name);
  });
  if (!tree.isPretrainedModel) return names;
  if (tree.outputEmbeddings !== null) names.delete(tree.outputEmbeddings);
  else if (config.taskType === "SEQ_CLS") {
    const head = seqClsHeadNames.find((candidate) => tree.seqClsHeads.includes(candidate));
    if (head !== undefined) names.delete(head);
  }
  return names;
}

import type { LiveKind } from "../peft/live.ts";
import type { Preparation } from "../peft/prepare.ts";
import { type ModuleKind, type ModuleTree, moduleKinds } from "../tree.ts";

const effective = new WeakMap<Preparation, ModuleTree>();

/** The tree whose names are matched: the model's, or, where layers are replicated, the deeper one's. */
export function effectiveTree(tree: ModuleTree, preparation: Preparation): ModuleTree {
  const { steps, modules } = preparation;
  if (!steps.isReplicated) return tree;
  let deeper = effective.get(preparation);
  if (deeper === undefined) {
    deeper = {
      ...tree,
      modules: modules.names.map((name, index) => {
        const { className, kind, info } = modules.moduleAt(index);
        return {
          name,
          className,
          kind: treeKind(kind),
          in: null,
          out: null,
          parameters: info?.parameters ?? [],
        };
      }),
    };
    effective.set(preparation, deeper);
  }
  return deeper;
}

/** A wrapper counts as a module like any other. */
const treeKind = (kind: LiveKind): ModuleKind =>
  (moduleKinds as readonly string[]).includes(kind) ? (kind as ModuleKind) : "module";

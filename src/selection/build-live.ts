import { failure } from "./failure.ts";
import { LiveModule, LiveParameter } from "./live.ts";
import { leafOf, parentOf } from "./python.ts";
import type { ModuleTree } from "./tree.ts";

/** A live model and, parallel to `tree.modules`, its modules. */
export type LiveModel = {
  readonly root: LiveModule;
  readonly modules: readonly LiveModule[];
  /** Adds saved buffers; needed only where whole modules or biases are saved. */
  attachBuffers(): void;
};

/**
 * Makes the modules of a tree, with parameters shared where they are tied and modules where they are duplicates.
 * All parameters are frozen, as PEFT leaves them.
 * @throws SelectionError `invalid-skeleton` where a module has no parent in the tree.
 */
export function buildLive(tree: ModuleTree): LiveModel {
  const byName = new Map<string, LiveModule>();
  const tied = new Map(tree.tiedWeights);
  const shared = new Map<string, LiveParameter>();
  const firstPaths = new Set(tied.values());
  const modules = tree.modules.map((info) => {
    const module = new LiveModule(info.className, info.kind, info);
    for (const [own, shape] of info.parameters) {
      const path = tied.size === 0 ? "" : info.name === "" ? own : `${info.name}.${own}`;
      const parameter = shared.get(tied.get(path) ?? "") ?? new LiveParameter(shape);
      if (firstPaths.has(path)) shared.set(path, parameter);
      module.setParameter(own, parameter);
    }
    byName.set(info.name, module);
    if (info.name !== "") parentIn(byName, info.name).setChild(leafOf(info.name), module);
    return module;
  });
  attachDuplicates(tree, byName);
  let hasBuffers = false;
  return {
    root: modules[0]!,
    modules,
    attachBuffers() {
      if (hasBuffers) return;
      hasBuffers = true;
      for (const [path, shape] of tree.stateDict ?? []) {
        const module = byName.get(parentOf(path));
        if (module !== undefined && !module.parameters.has(leafOf(path)))
          module.setBuffer(leafOf(path), shape);
      }
    },
  };
}

function parentIn(byName: ReadonlyMap<string, LiveModule>, name: string): LiveModule {
  const parent = byName.get(parentOf(name));
  if (parent === undefined)
    throw failure(
      "inject",
      "ValueError",
      "invalid-skeleton",
      `Module "${name}" comes before its parent "${parentOf(name)}", or the parent is missing. ` +
        "List every module, parents first.",
      { module: name },
    );
  return parent;
}

/** A second path to a module: the position among its siblings is told by the order of the saved tensors. */
function attachDuplicates(tree: ModuleTree, byName: Map<string, LiveModule>): void {
  if (tree.duplicateModules.length === 0) return;
  const position = new Map<string, number>();
  (tree.stateDict ?? []).forEach(([path], i) => {
    for (let name = parentOf(path); !position.has(name); name = parentOf(name)) position.set(name, i);
  });
  for (const [path, first] of tree.duplicateModules) {
    const parent = parentIn(byName, path);
    const module = byName.get(first);
    if (module === undefined || parent.children.has(leafOf(path))) continue;
    byName.set(path, module);
    const siblings = [...parent.children];
    const own = position.get(path) ?? Number.POSITIVE_INFINITY;
    const at = siblings.findIndex(([name]) => {
      const sibling = position.get(parentOf(path) === "" ? name : `${parentOf(path)}.${name}`);
      return sibling !== undefined && sibling > own;
    });
    siblings.splice(at === -1 ? siblings.length : at, 0, [leafOf(path), module]);
    parent.replaceChildren(siblings);
  }
}

import { failure } from "./failure.ts";
import { LiveModule } from "./live.ts";
import { leafOf, parentOf } from "./python.ts";
import { getSubmodule, type NamedModule } from "./traverse.ts";
import type { ModuleTree } from "./tree.ts";

/** A live model. */
export type LiveModel = {
  readonly root: LiveModule;
  /** Parallel to the modules of the tree. */
  readonly modules: readonly NamedModule[];
  /** Adds saved buffers; call before anything is wrapped, where whole modules or biases are saved. */
  attachBuffers(): void;
};

/**
 * Makes the modules of a tree, with parameters shared where they are tied and modules where they are duplicates.
 * All parameters are frozen, as PEFT leaves them.
 * @throws SelectionError `invalid-skeleton` where a module does not come after its parent.
 */
export function buildLive(tree: ModuleTree): LiveModel {
  const modules: NamedModule[] = [];
  const path: NamedModule[] = [];
  for (const info of tree.modules) {
    const { name } = info;
    while (path.length > 1 && !isInside(name, path[path.length - 1]!.name)) path.pop();
    const holder = path[path.length - 1];
    if (holder !== undefined && parentOf(name) !== holder.name) throw misplaced(name);
    const module = new LiveModule(info.className, info.kind, info);
    holder?.module.setChild(leafOf(name), module);
    const named = { name, module, parent: holder?.module ?? null };
    modules.push(named);
    path.push(named);
  }
  const root = modules[0]!.module;
  shareTied(tree, root);
  attachDuplicates(tree, root);
  return {
    root,
    modules,
    attachBuffers() {
      const byName = new Map(modules.map(({ name, module }) => [name, module]));
      for (const [key, shape] of tree.stateDict ?? []) {
        const module = byName.get(parentOf(key));
        if (module !== undefined && !module.parameters.has(leafOf(key))) module.setBuffer(leafOf(key), shape);
      }
    },
  };
}

const isInside = (name: string, container: string): boolean =>
  name.length > container.length && name.charCodeAt(container.length) === 46 && name.startsWith(container);

function shareTied(tree: ModuleTree, root: LiveModule): void {
  for (const [path, first] of tree.tiedWeights) {
    const shared = getSubmodule(root, parentOf(first))?.parameters.get(leafOf(first));
    if (shared !== undefined) getSubmodule(root, parentOf(path))?.setParameter(leafOf(path), shared);
  }
}

const misplaced = (name: string) =>
  failure(
    "inject",
    "ValueError",
    "invalid-skeleton",
    `Module "${name}" does not follow its parent "${parentOf(name)}". List every module, parents first, as ` +
      "named_modules() does.",
    { module: name },
  );

/** A second path to a module: the position among its siblings is told by the order of the saved tensors. */
function attachDuplicates(tree: ModuleTree, root: LiveModule): void {
  if (tree.duplicateModules.length === 0) return;
  const position = new Map<string, number>();
  (tree.stateDict ?? []).forEach(([path], i) => {
    for (let name = parentOf(path); !position.has(name); name = parentOf(name)) position.set(name, i);
  });
  for (const [path, first] of tree.duplicateModules) {
    const parent = getSubmodule(root, parentOf(path));
    const module = getSubmodule(root, first);
    if (parent === undefined || module === undefined || parent.children.has(leafOf(path))) continue;
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

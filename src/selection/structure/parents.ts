import { parentOf } from "../python.ts";
import type { ModuleInfo } from "../tree.ts";

/** Where modules hang. */
export type Parents = {
  /** For each module the index of its parent, -1 for the root and for what has none in the list. */
  readonly indices: Int32Array;
  /**
   * The first module that does not come where a walk through the tree, from the root named "", would list it: below the
   * one before, or below one that contains it. -1 if all do.
   */
  readonly misplaced: number;
};

const known = new WeakMap<readonly ModuleInfo[], Parents>();

/** The parents of all modules of a list, found once. */
export function parentsOf(modules: readonly ModuleInfo[]): Parents {
  let parents = known.get(modules);
  if (parents === undefined) {
    parents = findParents(modules);
    known.set(modules, parents);
  }
  return parents;
}

/** Modules come in the order of a walk through the tree, so that a parent is nearly always the last one that was opened. */
function findParents(modules: readonly ModuleInfo[]): Parents {
  const count = modules.length;
  const indices = new Int32Array(count).fill(-1);
  const open = new Int32Array(count + 1);
  let depth = 0;
  let misplaced = count > 0 && modules[0]!.name !== "" ? 0 : -1;
  let byName: Map<string, number> | undefined;
  for (let index = 0; index < count; index++) {
    const { name } = modules[index]!;
    if (name === "") {
      if (index > 0 && misplaced === -1) misplaced = index;
      open[0] = index;
      depth = 1;
      continue;
    }
    const length = Math.max(0, name.lastIndexOf("."));
    let top = depth - 1;
    for (; top >= 0; top--) {
      const above = modules[open[top]!]!.name;
      if (above.length === length && name.startsWith(above)) break;
    }
    if (top >= 0) {
      indices[index] = open[top]!;
      depth = top + 1;
    } else {
      if (misplaced === -1) misplaced = index;
      byName ??= new Map(modules.map((module, i) => [module.name, i]));
      const found = byName.get(parentOf(name)) ?? -1;
      if (found < index) indices[index] = found;
    }
    open[depth++] = index;
  }
  return { indices, misplaced };
}

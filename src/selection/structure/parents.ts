import { parentOf } from "../python.ts";
import type { ModuleInfo } from "../tree.ts";

/**
 * For each module the index of its parent, -1 for the root and for what has none in the list. Modules come in the
 * order of a walk through the tree, so that a parent is nearly always the last one that was opened.
 */
export function parentIndices(modules: readonly ModuleInfo[]): Int32Array {
  const parents = new Int32Array(modules.length).fill(-1);
  const open: number[] = [];
  let byName: Map<string, number> | undefined;
  modules.forEach(({ name }, index) => {
    if (name === "") {
      open.length = 0;
      open.push(index);
      return;
    }
    const dot = name.lastIndexOf(".");
    for (let top = open.length - 1; top >= 0; top--) {
      const above = modules[open[top]!]!.name;
      const isParent = dot === -1 ? above === "" : above.length === dot && name.startsWith(above);
      if (!isParent) continue;
      open.length = top + 1;
      parents[index] = open[top]!;
      open.push(index);
      return;
    }
    byName ??= new Map(modules.map((module, i) => [module.name, i]));
    const found = byName.get(parentOf(name)) ?? -1;
    parents[index] = found < index ? found : -1;
    open.push(index);
  });
  return parents;
}

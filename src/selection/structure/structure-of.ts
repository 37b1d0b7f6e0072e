import type { ModuleTree } from "../tree.ts";
import { Structure } from "./structure.ts";

const structures = new WeakMap<ModuleTree, Structure>();

/** The structure of a tree, found once. */
export function structureOf(tree: ModuleTree): Structure {
  let structure = structures.get(tree);
  if (structure === undefined) {
    structure = new Structure(tree);
    structures.set(tree, structure);
  }
  return structure;
}

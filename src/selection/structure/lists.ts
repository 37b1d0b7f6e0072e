import { leafOf, parentOf } from "../python.ts";
import type { ModuleInfo, ModuleTree } from "../tree.ts";
import { parentsOf } from "./parents.ts";

/** A module whose children are all numbered, such as `model.encoder.layers`. */
export type NumberedList = {
  readonly path: string;
  /** The path with the numbers of outer lists replaced: `model.stages.#.blocks`. Equal for all lists of one kind. */
  readonly template: string;
  /** The numbers of its items, ascending. */
  readonly indices: readonly number[];
  /** Whether at least two items are of the same make: a stack of layers or experts, not the steps of a Sequential. */
  readonly isRepeated: boolean;
  /** The innermost list around it. */
  readonly within: NumberedList | null;
};

/** One step of a name through a numbered list. */
export type Position = { readonly list: NumberedList; readonly index: number };

const number = /^(?:0|[1-9][0-9]*)$/;

/** All numbered lists of a tree, outer ones first, in the order of the modules. */
export function findLists(tree: ModuleTree): NumberedList[] {
  const { modules } = tree;
  const children = childrenOf(modules);
  const leaf = (index: number): string => leafOf(modules[index]!.name);
  const lists = new Map<string, NumberedList>();
  for (const [parent, items] of children) {
    const last = modules[items[0]!]!.name.charCodeAt(modules[items[0]!]!.name.length - 1);
    if (!(last >= 48 && last <= 57) || !number.test(leaf(items[0]!))) continue; // most modules are no lists
    const names = items.map(leaf);
    if (!names.every((name) => number.test(name))) continue;
    const path = parentOf(modules[items[0]!]!.name);
    const isModuleList = parent >= 0 && modules[parent]!.className === "ModuleList";
    const within = enclosing(path, lists);
    lists.set(path, {
      path,
      template: templateOf(path, within),
      indices: names.map(Number).sort((a, b) => a - b),
      isRepeated: hasTwins(items, (item) => {
        const inner = children.get(item);
        // two equal leaves are the steps of a Sequential as a rule
        if (inner === undefined && !isModuleList) return undefined;
        return `${modules[item]!.className} ${inner?.map(leaf).join(" ") ?? ""}`;
      }),
      within,
    });
  }
  return [...lists.values()];
}

/** The children of each module, by index; those whose parent is not listed are under negative keys, by its name. */
function childrenOf(modules: readonly ModuleInfo[]): Map<number, number[]> {
  const parents = parentsOf(modules).indices;
  const children = new Map<number, number[]>();
  const unlisted = new Map<string, number>();
  for (let i = 0; i < modules.length; i++) {
    const { name } = modules[i]!;
    if (name === "") continue;
    let parent = parents[i]!;
    if (parent === -1) {
      const above = parentOf(name);
      parent = unlisted.get(above) ?? -1 - unlisted.size;
      unlisted.set(above, parent);
    }
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [i]);
    else siblings.push(i);
  }
  return children;
}

function enclosing(path: string, lists: ReadonlyMap<string, NumberedList>): NumberedList | null {
  for (let outer = path; outer !== ""; ) {
    outer = parentOf(outer);
    const list = lists.get(outer);
    if (list !== undefined) return list;
  }
  return null;
}

/** Only the numbers that count items of a list are replaced, not those that belong to a name. */
function templateOf(path: string, within: NumberedList | null): string {
  if (within === null) return path;
  const start = within.path === "" ? 0 : within.path.length + 1;
  const dot = path.indexOf(".", start);
  const outer = within.template === "" ? "#" : `${within.template}.#`;
  return dot === -1 ? outer : outer + path.slice(dot);
}

function hasTwins(items: readonly number[], makeOf: (item: number) => string | undefined): boolean {
  const seen = new Set<string>();
  for (const item of items) {
    const make = makeOf(item);
    if (make === undefined) continue;
    if (seen.has(make)) return true;
    seen.add(make);
  }
  return false;
}

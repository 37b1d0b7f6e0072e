import { leafOf, parentOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";

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
  const children = new Map<string, string[]>();
  const makes = new Map<string, string>();
  for (const { name, className } of tree.modules) {
    makes.set(name, className);
    if (name === "") continue;
    const parent = parentOf(name);
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [leafOf(name)]);
    else siblings.push(leafOf(name));
  }
  const lists = new Map<string, NumberedList>();
  for (const [path, names] of children) {
    if (!names.every((name) => number.test(name))) continue;
    const within = enclosing(path, lists);
    lists.set(path, {
      path,
      template: templateOf(path, within),
      indices: names.map(Number).sort((a, b) => a - b),
      isRepeated: hasTwins(names, (name) => {
        const item = path === "" ? name : `${path}.${name}`;
        const inner = children.get(item);
        // two equal leaves are the steps of a Sequential as a rule
        if (inner === undefined && makes.get(path) !== "ModuleList") return undefined;
        return `${makes.get(item)} ${inner?.join(" ") ?? ""}`;
      }),
      within,
    });
  }
  return [...lists.values()];
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

function hasTwins(names: readonly string[], makeOf: (name: string) => string | undefined): boolean {
  const seen = new Set<string>();
  for (const name of names) {
    const make = makeOf(name);
    if (make === undefined) continue;
    if (seen.has(make)) return true;
    seen.add(make);
  }
  return false;
}

import { parentIndices } from "../selection/structure/parents.ts";
import type { ModuleInfo, ModuleTree } from "../selection/tree.ts";
import { ranges } from "./describe.ts";
import type { TreeViewOptions } from "./module-tree-view.ts";

/** A line of a folded tree: a module, or several items of a list that are alike. */
export type ViewNode = {
  /** The last part of the name; `layers.0–5` for a list whose items are all alike, `0–5` for some of its items. */
  readonly label: string;
  readonly info: ModuleInfo;
  /** Items of the list that this line stands for. */
  readonly count: number;
  /** Modules that this line stands for: `count`, times that of the lines around it. */
  readonly times: number;
  /** Of one of them, with everything below; tied ones count where they come first. */
  readonly parameters: number;
  readonly mark: string;
  /** The module whose weight this one uses, if it has no other. */
  readonly tiedTo: string | undefined;
  readonly children: readonly ViewNode[];
};

/** A module with what is below it. */
type Branch = {
  readonly leaf: string;
  readonly info: ModuleInfo;
  readonly mark: string;
  readonly tiedTo: string | undefined;
  children: Branch[];
  parameters: number;
  /** Equal for modules that are alike in everything below them. */
  make: number;
};

const number = /^(?:0|[1-9][0-9]*)$/;

/** The tree with the items of each list that are alike, and equally marked, put together. */
export function foldTree(tree: ModuleTree, { only, marks }: TreeViewOptions): ViewNode {
  const root = grow(tree, marks, only);
  const makes = new Map<string, number>();
  judge(root, makes);
  return fold(root, root.info.className || "model", 1, 1);
}

function grow(tree: ModuleTree, marks: TreeViewOptions["marks"], only: TreeViewOptions["only"]): Branch {
  const { modules } = tree;
  const tied = new Map(tree.tiedWeights);
  const shown = only === undefined ? undefined : withAncestors(tree, only);
  const parents = parentIndices(modules);
  const branches = modules.map((info): Branch => {
    const { name, parameters } = info;
    let own = 0;
    let tiedTo: string | undefined;
    for (const [parameter, shape] of parameters) {
      const source = tied.size === 0 ? undefined : tied.get(name === "" ? parameter : `${name}.${parameter}`);
      if (source === undefined) own += sizeOf(shape);
      else if (parameters.length === 1) tiedTo = source.slice(0, Math.max(0, source.lastIndexOf(".")));
    }
    return {
      leaf: name.slice(name.lastIndexOf(".") + 1),
      info,
      mark: marks?.get(name) ?? "",
      tiedTo,
      children: none,
      parameters: own,
      make: -1,
    };
  });
  const root = branches.find(({ info }) => info.name === "") ?? emptyRoot(tree);
  // Children come after their parents: counted from behind, what is below is complete when it is passed on.
  for (let i = branches.length - 1; i >= 0; i--) {
    const branch = branches[i]!;
    const parent = parents[i] === -1 ? root : branches[parents[i]!]!;
    if (parent !== branch) parent.parameters += branch.parameters;
  }
  branches.forEach((branch, i) => {
    const parent = parents[i] === -1 ? root : branches[parents[i]!]!;
    if (parent === branch || (shown !== undefined && !shown.has(branch.info.name))) return;
    if (parent.children === none) parent.children = [branch];
    else parent.children.push(branch);
  });
  return root;
}

/** Most modules have no children; they share this. */
const none: Branch[] = [];

const emptyRoot = ({ className }: ModuleTree): Branch => ({
  leaf: "",
  info: { name: "", className, kind: "module", in: null, out: null, parameters: [] },
  mark: "",
  tiedTo: undefined,
  children: none,
  parameters: 0,
  make: -1,
});

function withAncestors(tree: ModuleTree, only: (name: string) => boolean): Set<string> {
  const shown = new Set<string>();
  for (const { name } of tree.modules) {
    if (name === "" || !only(name)) continue;
    for (let end = name.length; end !== -1; end = name.lastIndexOf(".", end - 1)) {
      const part = name.slice(0, end);
      if (shown.size === shown.add(part).size || end === 0) break;
    }
  }
  return shown;
}

/** Says which modules are alike, innermost first, and drops what has neither parameters nor a mark. */
function judge(branch: Branch, makes: Map<string, number>): void {
  const { info, children, mark, tiedTo } = branch;
  let kept = 0;
  for (const child of children) {
    judge(child, makes);
    if (child.parameters > 0 || child.children.length > 0 || child.mark !== "" || child.tiedTo !== undefined)
      children[kept++] = child;
  }
  if (kept < children.length) children.length = kept;
  let key = `${info.className}\n${info.kind}\n${mark}\n${tiedTo ?? ""}`;
  for (const [name, shape] of info.parameters) {
    key += `\n${name}`;
    for (const dim of shape) key += ` ${dim}`;
  }
  for (const { leaf, make } of children) key += `\n.${leaf} ${make}`;
  const known = makes.get(key);
  branch.make = known ?? makes.size;
  if (known === undefined) makes.set(key, makes.size);
}

function fold(branch: Branch, label: string, count: number, times: number): ViewNode {
  const { info, parameters, mark, tiedTo, children } = branch;
  const lines: ViewNode[] = [];
  const alike = new Map<number, Branch[]>();
  for (const child of children) {
    if (!number.test(child.leaf)) continue;
    const group = alike.get(child.make);
    if (group === undefined) alike.set(child.make, [child]);
    else group.push(child);
  }
  for (const child of children) {
    const group = number.test(child.leaf) ? alike.get(child.make)! : [child];
    if (group[0] !== child) continue;
    const name = group.length === 1 ? child.leaf : numberRanges(group.map(({ leaf }) => Number(leaf)));
    const list = group.length === children.length && group.length > 1 && branch.leaf !== "";
    const node = fold(child, list ? `${branch.leaf}.${name}` : name, group.length, times * group.length);
    if (!list) lines.push(node);
    // A list whose items are all alike, and which is nothing besides, needs no line of its own.
    else if (info.parameters.length === 0 && mark === "" && count === 1) return node;
    else lines.push(node);
  }
  return { label, info, count, times, parameters, mark, tiedTo, children: lines };
}

const sizeOf = (shape: readonly number[]): number => {
  let size = 1;
  for (const dim of shape) size *= dim;
  return size;
};

/** `0–5, 8, 10–11`; an even row of at least four is `0, 2, …, 22`. */
export function numberRanges(numbers: readonly number[]): string {
  const [first = 0, second = 0] = numbers;
  const step = second - first;
  if (numbers.length > 3 && step > 1 && numbers.every((n, i) => n === first + i * step))
    return `${first}, ${second}, …, ${numbers.at(-1)}`;
  const parts = ranges(numbers).split(", ");
  return parts.length <= 12 ? parts.join(", ") : `${parts.slice(0, 11).join(", ")}, …, ${parts.at(-1)}`;
}

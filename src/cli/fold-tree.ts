import { parentsOf } from "../selection/structure/parents.ts";
import { ownSizes } from "../selection/structure/sizes.ts";
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

const number = /^(?:0|[1-9][0-9]*)$/;

/** The tree with the items of each list that are alike, and equally marked, put together. */
export function foldTree(tree: ModuleTree, options: TreeViewOptions): ViewNode {
  const grown = new Growth(tree, options);
  return grown.fold(0, grown.modules[0]!.className || "model", 1, 1);
}

/** A tree by the indices of its modules: with 100,000 of them, an object for each would take longer than all the rest. */
class Growth {
  readonly modules: readonly ModuleInfo[];
  /** By place among the modules. */
  private readonly marks: ReadonlyMap<number, string>;
  /** Parameters of a module with everything below it. */
  private readonly parameters: Float64Array;
  private readonly children: (number[] | undefined)[];
  /** Equal for modules that are alike in everything below them. */
  private readonly makes: Int32Array;
  private readonly tiedTo = new Map<number, string>();
  /** Set for what is left out, which need not be judged. */
  private readonly isHidden: Uint8Array;

  constructor(tree: ModuleTree, { only, marks, onlyMarked = false }: TreeViewOptions) {
    const { modules, className } = tree;
    const root = { name: "", className, kind: "module", in: null, out: null, parameters: [] } as const;
    this.modules = modules[0]?.name === "" ? modules : [root, ...modules];
    this.marks = placesOf(this.modules, marks);
    this.parameters = new Float64Array(this.modules.length);
    this.children = new Array(this.modules.length);
    this.makes = new Int32Array(this.modules.length);
    this.isHidden = new Uint8Array(this.modules.length);
    const parents = parentsOf(this.modules).indices;
    this.count(tree.tiedWeights, parents);
    if (onlyMarked) this.showOnly(this.marks.keys(), parents);
    else if (only !== undefined) this.showOnly(placesWhere(this.modules, only), parents);
    for (let i = 1; i < this.modules.length; i++) {
      if (this.isHidden[i] === 1) continue;
      const parent = Math.max(0, parents[i]!);
      const siblings = this.children[parent];
      if (siblings === undefined) this.children[parent] = [i];
      else siblings.push(i);
    }
    this.judge();
  }

  private count(tiedWeights: ModuleTree["tiedWeights"], parents: Int32Array): void {
    this.parameters.set(ownSizes(this.modules));
    if (tiedWeights.length > 0) {
      const tied = new Map(tiedWeights);
      const holders = new Set(tiedWeights.map(([path]) => path.slice(0, Math.max(0, path.lastIndexOf(".")))));
      this.modules.forEach(({ name, parameters }, i) => {
        if (!holders.has(name)) return;
        for (const [parameter, shape] of parameters) {
          const source = tied.get(name === "" ? parameter : `${name}.${parameter}`);
          if (source === undefined) continue;
          this.parameters[i]! -= sizeOf(shape);
          if (parameters.length === 1)
            this.tiedTo.set(i, source.slice(0, Math.max(0, source.lastIndexOf("."))));
        }
      });
    }
    // Children come after their parents: counted from behind, what is below is complete when it is passed on.
    for (let i = parents.length - 1; i > 0; i--)
      this.parameters[Math.max(0, parents[i]!)]! += this.parameters[i]!;
  }

  /** Hides everything but these modules and what contains them. */
  private showOnly(places: Iterable<number>, parents: Int32Array): void {
    this.isHidden.fill(1, 1);
    for (const place of places)
      for (let i = place; i > 0 && this.isHidden[i] === 1; i = parents[i]!) this.isHidden[i] = 0;
  }

  /** Says which modules are alike, innermost first, and drops what has neither parameters nor a mark. */
  private judge(): void {
    const known = new Map<string, number>();
    // Nearly all modules of a large model are matrices: known by their shape, without a text to describe them.
    const matrices = new Map<string, Map<number, number>>();
    let matrixCount = 0;
    let group: { className: string; kind: string; mark: string; shapes: Map<number, number> } | undefined;
    for (let i = this.modules.length - 1; i >= 0; i--) {
      if (this.isHidden[i] === 1) continue;
      const { className, kind, parameters } = this.modules[i]!;
      const mark = this.mark(i);
      const isLeaf = this.children[i] === undefined && (this.tiedTo.size === 0 || !this.tiedTo.has(i));
      const matrix = isLeaf ? plainMatrix(parameters) : undefined;
      if (matrix !== undefined) {
        if (
          group === undefined ||
          group.className !== className ||
          group.kind !== kind ||
          group.mark !== mark
        ) {
          const key = `${className} ${kind} ${mark}`;
          const shapes = matrices.get(key) ?? new Map<number, number>();
          matrices.set(key, shapes);
          group = { className, kind, mark, shapes };
        }
        const { shapes } = group;
        // Makes of matrices are negative, those of all others positive.
        const make = shapes.get(matrix) ?? -1 - matrixCount++;
        shapes.set(matrix, make);
        this.makes[i] = make;
        continue;
      }
      let key = `${className} ${kind} ${mark}`;
      const tiedTo = this.tiedTo.get(i);
      if (tiedTo !== undefined) key += ` = ${tiedTo}`;
      for (const [name, shape] of parameters) {
        key += ` ${name}`;
        for (const dim of shape) key += `,${dim}`;
      }
      const children = this.children[i]?.filter((child) => this.isShown(child));
      this.children[i] = children;
      if (children !== undefined)
        for (const child of children) key += `\n${this.leaf(child)} ${this.makes[child]}`;
      const make = known.get(key) ?? known.size;
      known.set(key, make);
      this.makes[i] = make;
    }
  }

  private isShown(i: number): boolean {
    return (
      this.parameters[i]! > 0 ||
      (this.children[i]?.length ?? 0) > 0 ||
      this.mark(i) !== "" ||
      this.tiedTo.has(i)
    );
  }

  private mark(i: number): string {
    return this.marks.get(i) ?? "";
  }

  private leaf(i: number): string {
    const { name } = this.modules[i]!;
    return name.slice(name.lastIndexOf(".") + 1);
  }

  fold(index: number, label: string, count: number, times: number): ViewNode {
    const info = this.modules[index]!;
    const children = this.children[index] ?? [];
    const mark = this.mark(index);
    const alike = new Map<number, number[]>();
    for (const child of children) {
      if (!number.test(this.leaf(child))) continue;
      const group = alike.get(this.makes[child]!);
      if (group === undefined) alike.set(this.makes[child]!, [child]);
      else group.push(child);
    }
    const lines: ViewNode[] = [];
    for (const child of children) {
      const leaf = this.leaf(child);
      const group = number.test(leaf) ? alike.get(this.makes[child]!)! : [child];
      if (group[0] !== child) continue;
      const name = group.length === 1 ? leaf : numberRanges(group.map((item) => Number(this.leaf(item))));
      const isWhole = group.length === children.length && group.length > 1 && info.name !== "";
      const label = isWhole ? `${this.leaf(index)}.${name}` : name;
      const node = this.fold(child, label, group.length, times * group.length);
      // A list whose items are all alike, and which is nothing besides, needs no line of its own.
      if (isWhole && info.parameters.length === 0 && mark === "" && count === 1) return node;
      lines.push(node);
    }
    const tiedTo = this.tiedTo.get(index);
    return { label, info, count, times, parameters: this.parameters[index]!, mark, tiedTo, children: lines };
  }
}

/** One number for the shape of a module that has nothing but a matrix called weight. */
function plainMatrix(parameters: ModuleInfo["parameters"]): number | undefined {
  if (parameters.length !== 1) return undefined;
  const parameter = parameters[0]!;
  const shape = parameter[1];
  if (parameter[0] !== "weight" || shape.length !== 2) return undefined;
  const rows = shape[0]!;
  const columns = shape[1]!;
  return rows < 2 ** 26 && columns < 2 ** 26 ? rows * 2 ** 26 + columns : undefined;
}

/** Marks by place. They come in the order of the modules as a rule, so the next places are tried first. */
function placesOf(modules: readonly ModuleInfo[], marks: TreeViewOptions["marks"]): Map<number, string> {
  const places = new Map<number, string>();
  let byName: Map<string, number> | undefined;
  let next = 0;
  for (const [name, mark] of marks ?? []) {
    while (next < modules.length && modules[next]!.name !== name) next++;
    if (next < modules.length) {
      places.set(next++, mark);
      continue;
    }
    byName ??= new Map(modules.map((module, i) => [module.name, i]));
    const place = byName.get(name);
    if (place !== undefined) places.set(place, mark);
  }
  return places;
}

function* placesWhere(modules: readonly ModuleInfo[], only: (name: string) => boolean): Iterable<number> {
  for (let i = 0; i < modules.length; i++) {
    const { name } = modules[i]!;
    if (name !== "" && only(name)) yield i;
  }
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

import { parentOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { findLists, type NumberedList, type Position } from "./lists.ts";

/** Repeated modules of one kind: `encoder.layers` × 6. Lists inside the items of another are one block where they have the same length. */
export type Block = {
  /** The shortest tail of the path that no other kind of list has, as for `layersPattern`; `#` stands for the items of an outer list. */
  readonly pattern: string;
  readonly template: string;
  /** Items per list. */
  readonly count: number;
  /** The lists that it stands for: one, or one per item of an outer list. */
  readonly lists: readonly NumberedList[];
};

/** Where a module is: its name with the numbers of lists replaced, and those numbers, outermost first. */
export type Place = {
  /** `model.layers.#.self_attn.q_proj` */
  readonly template: string;
  readonly positions: readonly Position[];
};

/** The repeated parts of a model, found from its names. */
export class Structure {
  readonly lists: readonly NumberedList[];
  readonly blocks: readonly Block[];
  /** Where stacks of layers stand: the parents of outermost repeated lists, such as `model.vision_tower`. */
  readonly towers: readonly string[];
  readonly #byPath: ReadonlyMap<string, NumberedList>;

  constructor(tree: ModuleTree) {
    this.lists = findLists(tree);
    this.#byPath = new Map(this.lists.map((list) => [list.path, list]));
    this.blocks = findBlocks(this.lists);
    const outermost = this.lists.filter((list) => list.isRepeated && !hasRepeatedOuter(list));
    this.towers = [...new Set(outermost.map(({ path }) => parentOf(path)))];
  }

  /** Repeated lists that no other repeated list contains: what people call the layers of a tower. */
  get stacks(): NumberedList[] {
    return this.lists.filter((list) => list.isRepeated && !hasRepeatedOuter(list));
  }

  placeOf(name: string): Place {
    const positions: Position[] = [];
    let template = "";
    let list = this.#byPath.get("");
    for (let start = 0; start <= name.length; ) {
      const dot = name.indexOf(".", start);
      const end = dot === -1 ? name.length : dot;
      const part = name.slice(start, end);
      const shown = list === undefined ? part : "#";
      if (list !== undefined) positions.push({ list, index: Number(part) });
      template = start === 0 ? shown : `${template}.${shown}`;
      list = this.#byPath.get(name.slice(0, end));
      start = end + 1;
    }
    return { template, positions };
  }

  /** The tower that a module belongs to: the longest one that contains it; undefined outside all of them. */
  towerOf(name: string): string | undefined {
    let best: string | undefined;
    for (const tower of this.towers)
      if (
        (tower === "" || name === tower || name.startsWith(`${tower}.`)) &&
        tower.length >= (best?.length ?? 0)
      )
        best = tower;
    return best;
  }
}

function hasRepeatedOuter({ within }: NumberedList): boolean {
  for (let outer = within; outer !== null; outer = outer.within) if (outer.isRepeated) return true;
  return false;
}

function findBlocks(lists: readonly NumberedList[]): Block[] {
  const kinds = new Map<string, NumberedList[]>();
  const repeated = new Set(lists.filter(({ isRepeated }) => isRepeated).map(({ template }) => template));
  for (const list of lists) {
    if (!repeated.has(list.template)) continue; // a stage of one block counts where others have more
    const kind = kinds.get(list.template);
    if (kind === undefined) kinds.set(list.template, [list]);
    else kind.push(list);
  }
  const templates = [...kinds.keys()];
  const blocks: Block[] = [];
  for (const [template, alike] of kinds) {
    const lengths = new Set(alike.map(({ indices }) => indices.length));
    const count = alike[0]!.indices.length;
    if (lengths.size === 1)
      blocks.push({ pattern: shortestTail(template, templates), template, count, lists: alike });
    else {
      // stages of different depth: each list by itself
      const others = templates.filter((other) => other !== template);
      const paths = alike.map(({ path }) => path);
      for (const list of alike)
        blocks.push({
          pattern: shortestTail(list.path, [...others, ...paths]),
          template,
          count: list.indices.length,
          lists: [list],
        });
    }
  }
  return blocks;
}

/** The shortest dotted tail, starting with a name and not a number, that ends none of the other paths. */
function shortestTail(path: string, all: readonly string[]): string {
  const others = all.filter((other) => other !== path).map((other) => `.${other}`);
  for (let start = path.length; start > 0; ) {
    const dot = path.lastIndexOf(".", start - 1);
    const tail = path.slice(dot + 1);
    if (!/^[#0-9]/.test(tail) && !others.some((other) => other.endsWith(`.${tail}`))) return tail;
    start = dot;
  }
  return path;
}

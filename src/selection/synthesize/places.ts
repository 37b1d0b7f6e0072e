import { type Structure, structureOf } from "../structure/index.ts";
import type { ModuleTree } from "../tree.ts";

/** Stands for the number of a list's item in the parts of a shape. */
export const slot = "#";

/** Names that differ in the numbers of lists only. */
export type Shape = {
  /** `model.layers.#.self_attn.q_proj`, split at its dots. */
  readonly parts: readonly string[];
  readonly names: readonly string[];
  /** The numbers of each name, outermost first. */
  readonly numbers: readonly (readonly number[])[];
  readonly isWanted: readonly boolean[];
  readonly wantedCount: number;
};

type Place = { readonly key: string; readonly numbers: readonly number[] };

/** Where every module of a tree is; made once per tree. */
export class Places {
  readonly structure: Structure;
  readonly #places = new Map<string, Place>();

  constructor(tree: ModuleTree) {
    this.structure = structureOf(tree);
    for (const { name } of tree.modules) this.#places.set(name, this.#find(name));
  }

  #find(name: string): Place {
    const { template, positions } = this.structure.placeOf(name);
    return { key: template, numbers: positions.map(({ index }) => index) };
  }

  /** The shape of a module, as text. */
  templateOf(name: string): string {
    return this.#places.get(name)!.key;
  }

  /** Shapes of `names`, of modules or parameters, in order; those in `wanted` are marked. */
  shapesOf(names: Iterable<string>, wanted: { has(name: string): boolean }): Shape[] {
    const shapes = new Map<
      string,
      {
        parts: string[];
        names: string[];
        numbers: (readonly number[])[];
        isWanted: boolean[];
        wantedCount: number;
      }
    >();
    for (const name of names) {
      const { key, numbers } = this.#places.get(name) ?? this.#find(name);
      let shape = shapes.get(key);
      if (shape === undefined) {
        shape = { parts: key.split("."), names: [], numbers: [], isWanted: [], wantedCount: 0 };
        shapes.set(key, shape);
      }
      const isWanted = wanted.has(name);
      shape.names.push(name);
      shape.numbers.push(numbers);
      shape.isWanted.push(isWanted);
      if (isWanted) shape.wantedCount++;
    }
    return [...shapes.values()];
  }
}

const known = new WeakMap<ModuleTree, Places>();

export function placesOf(tree: ModuleTree): Places {
  let places = known.get(tree);
  if (places === undefined) {
    places = new Places(tree);
    known.set(tree, places);
  }
  return places;
}

/** Are all modules of this shape wanted? */
export const isWhole = (shape: Shape): boolean => shape.wantedCount === shape.names.length;

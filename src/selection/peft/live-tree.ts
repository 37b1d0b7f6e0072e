import { failure } from "../failure.ts";
import { leafOf, parentOf } from "../python.ts";
import { parentsOf } from "../structure/parents.ts";
import type { ModuleTree } from "../tree.ts";
import { type LiveKind, LiveModule } from "./live.ts";
import { getSubmodule, type NamedModule } from "./traverse.ts";

/** Modules in the order of `named_modules()`, addressed by position. */
export type Listing = {
  readonly names: readonly string[];
  kindAt(index: number): LiveKind;
  moduleAt(index: number): LiveModule;
  /** Puts `module` in the place of the one listed there. */
  replace(index: number, module: LiveModule): void;
};

/**
 * The live model of a tree. Modules are made only when somebody looks at them: for most selections that is the
 * targets alone, and the rest of a large model costs nothing. All parameters are frozen, as PEFT leaves them.
 */
export class LiveTree implements Listing {
  readonly names: readonly string[];
  readonly root: LiveModule;
  readonly #tree: ModuleTree;
  readonly #parent: Int32Array;
  readonly #firstChild: Int32Array;
  readonly #nextSibling: Int32Array;
  /** Modules made so far, and what stands in their place since. */
  readonly #made: (LiveModule | undefined)[];
  readonly #current: (LiveModule | undefined)[];

  /** @throws SelectionError `invalid-skeleton` where a module does not come after its parent. */
  constructor(tree: ModuleTree) {
    const { modules } = tree;
    this.#tree = tree;
    this.names = modules.map(({ name }) => name);
    const { indices, misplaced } = parentsOf(modules);
    if (misplaced !== -1 || modules.length === 0) throw misplacedModule(modules[misplaced]?.name ?? "");
    this.#parent = indices;
    this.#made = new Array(modules.length);
    this.#current = new Array(modules.length);
    this.#firstChild = new Int32Array(modules.length).fill(-1);
    this.#nextSibling = new Int32Array(modules.length).fill(-1);
    for (let index = modules.length - 1; index > 0; index--) {
      const parent = indices[index]!;
      this.#nextSibling[index] = this.#firstChild[parent]!;
      this.#firstChild[parent] = index;
    }
    this.root = this.moduleAt(0);
    shareTied(tree, this.root);
    attachDuplicates(tree, this.root);
  }

  kindAt(index: number): LiveKind {
    return this.#tree.modules[index]!.kind;
  }

  moduleAt(index: number): LiveModule {
    let module = this.#made[index];
    if (module === undefined) {
      module = new TreeModule(this, index, this.#tree);
      this.#made[index] = module;
    }
    return module;
  }

  replace(index: number, module: LiveModule): void {
    this.#current[index] = module;
    const parent = this.#made[this.#parent[index]!];
    if (parent instanceof TreeModule && parent.hasChildrenMade)
      parent.setChild(leafOf(this.names[index]!), module);
  }

  /** The children of a module, by their own names. */
  childrenOf(index: number): [string, LiveModule][] {
    const children: [string, LiveModule][] = [];
    for (let child = this.#firstChild[index]!; child !== -1; child = this.#nextSibling[child]!)
      children.push([leafOf(this.names[child]!), this.#current[child] ?? this.moduleAt(child)]);
    return children;
  }

  /** Adds saved buffers; call before anything is wrapped, where whole modules or biases are saved. */
  attachBuffers(): void {
    const indices = new Map(this.names.map((name, index) => [name, index]));
    for (const [key, shape] of this.#tree.stateDict ?? []) {
      const index = indices.get(parentOf(key));
      if (index === undefined) continue;
      const module = this.moduleAt(index);
      if (!module.parameters.has(leafOf(key))) module.setBuffer(leafOf(key), shape);
    }
  }
}

/** A module of the tree, which asks for its children when they are needed. */
class TreeModule extends LiveModule {
  readonly #live: LiveTree;
  readonly #index: number;
  hasChildrenMade = false;

  constructor(live: LiveTree, index: number, tree: ModuleTree) {
    const info = tree.modules[index]!;
    super(info.className, info.kind, info);
    this.#live = live;
    this.#index = index;
  }

  override get children(): ReadonlyMap<string, LiveModule> {
    this.#makeChildren();
    return super.children;
  }

  override setChild(name: string, child: LiveModule): void {
    this.#makeChildren();
    super.setChild(name, child);
  }

  #makeChildren(): void {
    if (this.hasChildrenMade) return;
    this.hasChildrenMade = true;
    for (const [name, child] of this.#live.childrenOf(this.#index)) super.setChild(name, child);
  }
}

/** Modules found by walking a live model, after its stack of layers was rebuilt. */
export function listingOf(modules: readonly NamedModule[]): Listing {
  return {
    names: modules.map(({ name }) => name),
    kindAt: (index) => modules[index]!.module.kind,
    moduleAt: (index) => modules[index]!.module,
    replace(index, module) {
      const { name, parent } = modules[index]!;
      parent?.setChild(leafOf(name), module);
    },
  };
}

/** No modules at all. */
export const emptyListing: Listing = listingOf([]);

function shareTied(tree: ModuleTree, root: LiveModule): void {
  for (const [path, first] of tree.tiedWeights) {
    const shared = getSubmodule(root, parentOf(first))?.parameters.get(leafOf(first));
    if (shared !== undefined) getSubmodule(root, parentOf(path))?.setParameter(leafOf(path), shared);
  }
}

const misplacedModule = (name: string) =>
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

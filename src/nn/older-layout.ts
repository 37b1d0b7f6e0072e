/** A module as `named_modules()` lists it: what layer selection reads of it. */
export type ListedModule = {
  readonly name: string;
  readonly className: string;
  readonly kind: string;
  readonly in: number | null;
  readonly out: number | null;
  readonly parameters: readonly NamedShape[];
  readonly extra?: object;
};

type NamedShape = readonly [name: string, shape: readonly number[]];

/** The modules that a model has in another layout. */
export type ListedModules = {
  readonly modules: readonly ListedModule[];
  /** `[path, first path]` of modules that are there twice. */
  readonly duplicateModules: readonly (readonly [string, string])[];
  /** Buffers that are saved, by the module that owns them. */
  readonly buffers: ReadonlyMap<string, readonly NamedShape[]>;
  readonly inputEmbeddings: string;
  /** What the class says scores tokens; null if it says nothing, though there may be such a layer. */
  readonly outputEmbeddings: string | null;
  /** Modules that share the input embedding's weight by the class's declaration. */
  readonly tiedWithEmbedding: readonly string[];
};

/** The names that another, older class gives the same model; adapters made with that class have them. */
export type OlderLayout = {
  /** What it is called in options: `"remote-code"`. */
  readonly naming: string;
  /** Whose names they are, for messages: "the code that came with older Florence-2 checkpoints". */
  readonly owner: string;
  /** The older name of a layer, a parameter or a part of an adapter; undefined if there is none. */
  toOlder(native: string): string | undefined;
  /** The name that a layer, a parameter or a part of an adapter has now; undefined if it has no older name. */
  toNative(older: string): string | undefined;
  /** Why a native module has no older name, if that can be said. */
  whyNot(native: string): string | undefined;
  /** Tensors of the older class that this one lacks, because they are zero. */
  readonly zeros: ReadonlySet<string>;
  /** How it is loaded in Python: the class of transformers, and what `from_pretrained` is given besides. */
  readonly python: { readonly className: string; readonly loading: string };
  /** Whether a saved `auto_mapping` names the older class. */
  isAutoMapping(mapping: Readonly<Record<string, unknown>>): boolean;
  /** The modules of the older class, in its order, from those that the model has now. */
  modules(
    native: readonly ListedModule[],
    options: { tied: boolean; stateDict: readonly NamedShape[] },
  ): ListedModules;
};

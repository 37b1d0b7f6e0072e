import type { Names, SelectionConfig } from "../peft/options.ts";
import type { EntryKind } from "./entry.ts";

/** Layers of one list: a number, an expression such as `"-2:"` or `"first 25%"`, or several of both, which unite. */
export type LayerValue = string | number | readonly (string | number)[];

/**
 * Which layers a group takes: the same of every stack of layers, each by its own length; or by list, named by its path,
 * the end of it after a dot, or a glob or regex for either.
 */
export type LayersSpec = LayerValue | Readonly<Record<string, LayerValue>> | ReadonlyMap<string, LayerValue>;

/** Modules that are chosen together. */
export type GroupSpec = {
  /** For messages. */
  readonly name?: string | undefined;
  /** Entries (see `Entry`): names, globs, regexes, "all-linear", negatives. Default: PEFT's for the type of model. */
  readonly targetModules?: string | Names | undefined;
  /** Entries of modules to leave out. */
  readonly excludeModules?: string | Names | undefined;
  /** Default: modules anywhere, in layers or not. */
  readonly layers?: LayersSpec | undefined;
  /** Default: that of the whole. */
  readonly r?: number | undefined;
  readonly loraAlpha?: number | undefined;
};

/**
 * A selection of groups, and any other option of LoraConfig. `r` and `loraAlpha` are for groups without their own, then
 * `rankPattern` and `alphaPattern` first; `excludeModules` is for all groups.
 */
export type GroupedSelection = Omit<
  SelectionConfig,
  "targetModules" | "excludeModules" | "layersToTransform" | "layersPattern" | "layerReplication"
> & {
  readonly groups: readonly GroupSpec[];
  readonly excludeModules?: string | Names | null;
  readonly targetModules?: null;
  readonly layersToTransform?: null;
  readonly layersPattern?: null;
  readonly layerReplication?: null;
};

/** Something that was probably not meant. */
export type GroupWarning = {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

/** What an entry did. */
export type CompiledEntry = {
  /** As given. */
  readonly entry: string;
  readonly kind: EntryKind;
  readonly negative: boolean;
  readonly option: "targetModules" | "excludeModules";
  /** Every module that it matches, whatever became of it. */
  readonly matched: readonly string[];
  /** Those of them that the group takes; of a negative entry, those that it took away. */
  readonly modules: readonly string[];
};

/** What a group takes. */
export type CompiledGroup = {
  readonly spec: GroupSpec;
  /** In the order of the model. */
  readonly modules: readonly string[];
  readonly entries: readonly CompiledEntry[];
};

import type { HubOptions } from "../checkpoint/index.ts";
import type { ModuleTree } from "../selection/tree.ts";

export type InspectionOptions = Pick<HubOptions, "fetch" | "headers"> & {
  readonly signal?: AbortSignal;
  /**
   * Show what is in the file, also where transformers gives modules and tensors other names when it loads them.
   * @default false
   */
  readonly asStored?: boolean;
  /** Do not look at weights where the modules are known without them. @default false */
  readonly skipWeights?: boolean;
};

/** Something that makes the tree less certain, or the model unlike its description. */
export type InspectionWarning = {
  readonly code: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
};

/** What is stored, by dtype. */
export type StoredDtype = { readonly tensors: number; readonly values: number; readonly bytes: number };

/** The weights beside a model, by their headers. */
export type StoredWeights = {
  readonly tensors: number;
  readonly bytes: number;
  readonly files: number;
  readonly dtypes: Readonly<Record<string, StoredDtype>>;
};

export type Inspection = {
  readonly tree: ModuleTree;
  /**
   * How the modules are known: a skeleton lists them; a `model` is built from config.json, exactly as transformers
   * does; else they are `inferred` from the tensors' names and shapes.
   */
  readonly source: "skeleton" | "model" | "inferred";
  readonly warnings: readonly InspectionWarning[];
  /** Undefined where there are no weights, or they were not looked at. */
  readonly weights: StoredWeights | undefined;
};

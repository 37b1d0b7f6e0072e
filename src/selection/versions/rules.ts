import type { ModuleKind } from "../tree.ts";

/** Which of PEFT's rules held: one value per rule that ever changed. */
export type Rules = {
  /** An entry of a list: a name or a tail after a dot, a regex for such a tail, or any end of the name. */
  readonly entries: "tail" | "regex" | "any-end";
  /**
   * How layersToTransform reads a layer's number: not at all; below a common container name, the last one; the last
   * number; the first.
   */
  readonly layers: "ignored" | "common" | "last" | "first";
  /** Whether layersPattern needs a name before it; then the number is the first group of the whole expression. */
  readonly needsPrefix: boolean;
  /** layersPattern without layers to transform is an error: never, where they are null or 0 or empty, where null. */
  readonly patternNeedsLayers: "never" | "truthy" | "not-null";
  /** rankPattern and alphaPattern: a regex after a dot, one key for both; the same, apart; a tail, apart. */
  readonly patterns: "ignored" | "after-dot-joint" | "after-dot" | "tail";
  /** What all-linear stands for: nothing, last name parts (the head by its full name), the same without the classifier, full names. */
  readonly allLinear: "none" | "leaves" | "leaves-no-head" | "names";
  /** How lists of 20 entries or more are condensed. */
  readonly condense: "never" | "any-end" | "tail";
  /** Which modules modulesToSave keeps from being adapted: none, by the end of the name, by a dotted part. */
  readonly saved: "kept" | "any-end" | "part";
  readonly excludes: boolean;
  /** Whether the model itself, whose name is empty, is passed over. */
  readonly skipsRoot: boolean;
  readonly parameters: boolean;
  /** Old projection names of stacked experts become parameters: never, in lists, in regexes and all-linear too. */
  readonly experts: "kept" | "lists" | "all";
  /** ensureWeightTying adapts tied layers. */
  readonly ties: boolean;
  /** Kinds that could not be adapted yet. */
  readonly missingKinds: readonly ModuleKind[];
  /** Model types in which Mamba's fused modules are refused. */
  readonly mamba: readonly string[];
};

/** PEFT 0.21. */
export const currentRules: Rules = {
  entries: "tail",
  layers: "first",
  needsPrefix: false,
  patternNeedsLayers: "not-null",
  patterns: "tail",
  allLinear: "names",
  condense: "tail",
  saved: "part",
  excludes: true,
  skipsRoot: true,
  parameters: true,
  experts: "all",
  ties: true,
  missingKinds: [],
  mamba: ["falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"],
};

import type { LayerHit } from "../peft/layer-filter.ts";

/** The rule that took a module, or the first one that did not. */
export type Rule =
  /** Taken: the name ends with an entry; is an entry; matches the regex. */
  | "suffix"
  | "name"
  | "regex"
  /** Taken by the shorthand, or not because of what kind of module it is. */
  | "all-linear"
  /** Taken by PEFT's default targets of the model type. */
  | "default-targets"
  /** Follows the input embedding, to which its weight is tied. */
  | "tied"
  /** A parameter that targetParameters names. */
  | "parameter"
  /** Taken by a group of a compiled selection. */
  | "group"
  /** Not taken, from here on: the model itself is never a target. */
  | "root"
  | "exclude-modules"
  | "modules-to-save"
  | "no-targets"
  | "no-entry"
  /** The entry that would match became a parameter of stacked experts. */
  | "moved-to-parameters"
  /** An entry matches, but the name has no layer index; or another index. */
  | "no-layer"
  | "layer"
  | "no-regex-match"
  | "no-group"
  /** The rules cannot be applied at all. */
  | "failure";

/** How near a module that is not taken comes to being taken. */
export type NearMiss =
  | {
      readonly kind: "layer";
      readonly entry: string;
      readonly layer: LayerHit;
      readonly wanted: readonly unknown[];
    }
  | { readonly kind: "no-layer"; readonly entry: string }
  /** Excluded or saved, but otherwise taken. */
  | { readonly kind: "excluded"; readonly entry: string }
  /** The entry and the name end in the same `parts` parts. */
  | { readonly kind: "tail"; readonly entry: string; readonly parts: number }
  | { readonly kind: "spelling"; readonly entry: string }
  | {
      readonly kind: "regex";
      /** The start of the name with which most of the regex is used up; undefined where that isn't known. */
      readonly reached?: string;
      /** Would it match with `.*` in front, or behind? */
      readonly before: boolean;
      readonly after: boolean;
    };

/** Why one module or parameter is adapted, or not. */
export type Explanation = {
  readonly name: string;
  readonly kind: "module" | "parameter";
  readonly selected: boolean;
  readonly rule: Rule;
  /** In words. */
  readonly reason: string;
  /** The entry of the option that decided, as configured. */
  readonly entry?: string;
  /** Of a compiled selection: number of the group that took it. */
  readonly group?: number;
  readonly layer?: LayerHit;
  readonly near?: NearMiss;
  /** Of what is adapted. */
  readonly r?: number;
  readonly alpha?: number;
  readonly scaling?: number;
  readonly parameters?: number;
  /** Its own parameters that targetParameters adapts. */
  readonly adaptedParameters?: readonly string[];
  /** The module, itself or one around it, that modulesToSave trains as a whole. */
  readonly saved?: string;
  /** It is matched, but cannot be adapted: PEFT fails here. */
  readonly problem?: { readonly code: string; readonly message: string };
  /** Why PEFT refuses the configuration as a whole; the verdict is what the rules say of this module nevertheless. */
  readonly failure?: { readonly code: string; readonly message: string };
};

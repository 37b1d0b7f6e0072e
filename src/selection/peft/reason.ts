import type { MatchResult } from "./match.ts";
import type { ResolvedConfig } from "./options.ts";

/** Why a target is one. */
export type TargetReason =
  | Extract<MatchResult, { status: "matched" }>
  /** A parameter named by `targetParameters`. */
  | { readonly status: "matched"; readonly rule: "parameter"; readonly entry: string }
  /** A module tied to the input embedding, which `ensureWeightTying` makes follow it. */
  | { readonly status: "matched"; readonly rule: "tied"; readonly entry: string };

/** A reason in words, e.g. `"q_proj" matched; layer index 3 is not in [4, 5]`. */
export function describeReason(reason: MatchResult | TargetReason, config: ResolvedConfig): string {
  const entry = "entry" in reason && reason.entry !== undefined ? quoteEntry(reason.entry) : "";
  switch (reason.rule) {
    case "regex":
      return reason.status === "matched"
        ? `the whole name matches the regex ${entry}`
        : `the whole name does not match the regex ${entry}`;
    case "name":
      return `listed by its full name in targetModules${config.layersToTransform === null ? "" : " (layersToTransform does not apply to full names)"}`;
    case "suffix":
      return reason.layer === undefined
        ? `the name ends with ${entry}`
        : `the name ends with ${entry}, and ${layerText(reason.layer)} is in ${wanted(config)}`;
    case "parameter":
      return `the parameter's name ends with ${entry} of targetParameters`;
    case "tied":
      return `its weight is tied to the input embedding ${entry} (ensureWeightTying)`;
    case "exclude-modules":
      return `excluded by excludeModules ${entry}`;
    case "modules-to-save":
      return `it is, or is inside, ${entry} of modulesToSave, which is trained as a whole`;
    case "no-targets":
      return "targetModules is not set; only targetParameters are adapted";
    case "no-entry":
      return "no entry of targetModules is its name or the end of it";
    case "no-layer":
      return `${entry} matched; but the name has no layer index${patternText(config)}`;
    case "layer":
      return `${entry} matched; ${layerText(reason.layer!)} is not in ${wanted(config)}`;
  }
}

/** Longer entries are cut in messages. */
const longestShown = 200;

/** An entry for a message: quoted, and cut where it is enormous. */
export const quoteEntry = (entry: string): string =>
  JSON.stringify(entry.length > longestShown ? `${entry.slice(0, longestShown - 1)}…` : entry);

const layerText = ({ index, layer }: { index: number; layer: string }): string =>
  `layer index ${index} (${layer})`;

const wanted = (config: ResolvedConfig): string => `[${wantedLayers(config).join(", ")}]`;

/** What `layersToTransform` holds, whatever its form. */
export function wantedLayers({ layersToTransform: layers }: ResolvedConfig): readonly unknown[] {
  if (layers === null) return [];
  return typeof layers === "object" ? [...(layers as Iterable<unknown>)] : [layers];
}

function patternText({ layersPattern }: ResolvedConfig): string {
  if (layersPattern === null) return " that layersToTransform could use";
  const patterns = typeof layersPattern === "string" ? [layersPattern] : [...layersPattern];
  return ` behind ${patterns.map((pattern) => JSON.stringify(pattern)).join(" or ")} (layersPattern)`;
}

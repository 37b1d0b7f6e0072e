import { failure } from "../failure.ts";
import { makeLayerFilter, pythonInt } from "../peft/layer-filter.ts";
import { isTruthy, type ResolvedConfig } from "../peft/options.ts";
import type { Match, Patterns } from "../peft/patterns.ts";
import type { Rules } from "./rules.ts";

/** Does a module that an entry matches belong to the chosen layers? */
export type LayerTest = (name: string) => boolean;

/** Containers of layers that releases 0.4 to 0.7 looked for where no pattern was given. */
const commonContainers = ["layers", "h", "block", "blocks", "layer"];

/** The layer filter of older rules; undefined where it filters nothing. */
export function layerTest(config: ResolvedConfig, rules: Rules, patterns: Patterns): LayerTest | undefined {
  const { layersToTransform: layers, layersPattern } = config;
  if (rules.layers === "ignored" || layers === null) return undefined;
  const isCommon = rules.layers === "common";
  if (!isCommon && Array.isArray(layers) && layers.length === 0) return undefined;
  if (rules.layers === "first" && !rules.needsPrefix) {
    const filter = makeLayerFilter(config, patterns);
    return (
      filter &&
      ((name) => {
        const hit = filter.find(name);
        return hit !== undefined && filter.accepts(hit.index);
      })
    );
  }
  const indices = new Set<unknown>(
    typeof layers === "object" ? [...(layers as Iterable<unknown>)] : [layers],
  );
  const sources = expressions(layersPattern, rules);
  // an empty list of patterns filtered nothing in 0.4 to 0.7
  if (sources.length === 0) return undefined;
  const accepts = (match: Match): boolean => indices.has(asInt(match.groups[1]));
  return (name) => {
    for (const source of sources) {
      const match = patterns.get(source, "layersPattern").match(name);
      if (match !== null) return accepts(match);
    }
    return false;
  };
}

function expressions(layersPattern: ResolvedConfig["layersPattern"], rules: Rules): string[] {
  const list = typeof layersPattern === "string" ? [layersPattern] : [...(layersPattern ?? [])];
  if (rules.layers === "common")
    return (layersPattern === null ? commonContainers : list).map((pattern) => `.*.${pattern}\\.(\\d+)\\.*`);
  const prefix = rules.layers === "last" ? ".*" : ".*?";
  return isTruthy(layersPattern)
    ? list.map((pattern) => `${prefix}\\.${pattern}\\.(\\d+)\\.`)
    : [`${prefix}\\.[^.]*\\.(\\d+)\\.`];
}

/** Python's int() of a group, which is not a number where the pattern has groups or alternatives of its own. */
function asInt(digits: string | undefined): number {
  if (digits !== undefined && /^\s*\p{Nd}+\s*$/u.test(digits)) return pythonInt(digits.trim());
  throw failure(
    "inject",
    digits === undefined ? "TypeError" : "ValueError",
    "layer-not-a-number",
    "layersPattern has a group or an alternative of its own, and what that matches was read as the layer's number.",
  );
}

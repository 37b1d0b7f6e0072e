import { nearest } from "../../errors.ts";
import { failure, quoteNames } from "../failure.ts";
import { leafOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { makeMatcher } from "./match.ts";
import { isTruthy, type ResolvedConfig } from "./options.ts";
import type { Patterns } from "./patterns.ts";

/** Names that were looked at, by outcome. */
export type Outcome = { readonly excluded: readonly string[]; readonly unmatched: readonly string[] };

/** The error when neither a module nor a parameter is targeted: says which rule lost them, and what comes close. */
export function noMatch(
  config: ResolvedConfig,
  tree: ModuleTree,
  { excluded, unmatched }: Outcome,
  patterns: Patterns,
) {
  const fail = (code: string, message: string, details: Record<string, unknown> = {}) =>
    failure("inject", "NoMatchingPeftModuleError", code, message, { ...details, ...counts });
  const counts = { model: tree.name, excluded: excluded.length, unmatched: unmatched.length };
  if (excluded.length > 0 && unmatched.length === 0)
    return fail(
      "all-excluded",
      `All ${excluded.length} modules of "${tree.name}" are excluded by excludeModules or modulesToSave. ` +
        "Exclude less.",
    );
  const { targetModules } = config;
  if (excluded.length === 0 && unmatched.length > 0 && !(targetModules !== null && isTruthy(targetModules)))
    return fail(
      "no-targets-given-none-found",
      isTruthy(config.targetParameters)
        ? `No parameter of "${tree.name}" is called ${quoteNames(config.targetParameters!)}, and targetModules is ` +
            `empty.${closest([...config.targetParameters!], parameterNames(tree))}`
        : "targetModules is empty, so nothing would be adapted. Name the modules to adapt.",
      { nearest: nearestNames([...(config.targetParameters ?? [])], parameterNames(tree)) },
    );
  const searched = typeof targetModules === "string" ? [targetModules] : [...(targetModules ?? [])];
  const layers = layersNote(config, [...unmatched], patterns);
  if (excluded.length === 0 && unmatched.length > 0) {
    const what = typeof targetModules === "string" ? "targetModules, the regex" : "targetModules";
    const shown = typeof targetModules === "string" ? JSON.stringify(targetModules) : quoteNames(searched);
    return fail(
      layers === "" ? "no-match" : "no-match-with-layers",
      `no module matches ${what} ${shown} (checked ${unmatched.length} modules of "${tree.name}").` +
        `${layers}${hint(config, searched, unmatched, layers !== "")}`,
      { targets: searched, nearest: nearestNames(searched, unmatched) },
    );
  }
  return fail(
    "nothing-targeted",
    `no module of "${tree.name}" is left to adapt: ${excluded.length} are excluded by excludeModules or ` +
      `modulesToSave, and targetModules ${quoteNames(searched)} matches none of the other ${unmatched.length}.` +
      `${layers} Exclude less, or target other modules.`,
    { targets: searched },
  );
}

/** Says what the layer filter asked for, and which layers the entries would have matched without it. */
function layersNote(config: ResolvedConfig, names: readonly string[], patterns: Patterns): string {
  const { layersToTransform, layersPattern } = config;
  if (layersToTransform === null && layersPattern === null) return "";
  const asked = [`layersToTransform ${JSON.stringify(layersToTransform)}`];
  if (layersPattern !== null)
    asked.push(
      `layersPattern ${JSON.stringify(typeof layersPattern === "string" ? layersPattern : [...layersPattern])}`,
    );
  const match = makeMatcher(config, patterns);
  const results = names.map(match).filter(({ rule }) => rule === "layer" || rule === "no-layer");
  if (results.length === 0) return ` (${asked.join(", ")} would apply on top.)`;
  const indices = new Set(results.map((result) => ("layer" in result ? result.layer?.index : undefined)));
  const found = [...indices].filter((index) => index !== undefined).sort((a, b) => a - b);
  return (
    ` ${results.length} modules match by name, but not ${asked.join(" with ")}: ` +
    `${found.length === 0 ? "their names hold no such layer index" : `their layers are ${found.join(", ")}`}.`
  );
}

/** What to change: a regex must match whole names, list entries are literal, or the closest names. */
function hint(
  config: ResolvedConfig,
  searched: readonly string[],
  names: readonly string[],
  hasLayers: boolean,
): string {
  if (typeof config.targetModules === "string") {
    const text = config.targetModules;
    const ending = names.find((name) => name.endsWith(`.${text}`));
    return ending === undefined
      ? ' A string is a regular expression for the whole name, e.g. ".*\\.q_proj".'
      : ` A string must match the whole name; "${ending}" only ends with it: use [${JSON.stringify(text)}].`;
  }
  if (searched.some((entry) => /[\\*^$|[(+]/.test(entry)))
    return " Entries of a list are plain names, not regular expressions: pass one string instead of a list.";
  const near = closest(searched, names);
  return near === "" && hasLayers ? " Change the layers, or leave them out." : near;
}

function closest(searched: readonly string[], names: readonly string[]): string {
  const found = nearestNames(searched, names);
  return found.length === 0 ? "" : ` Closest: ${found.map((name) => JSON.stringify(name)).join(", ")}.`;
}

/** For each searched name the nearest tails of the same number of parts; at most three in all. */
function nearestNames(searched: readonly string[], names: readonly string[]): string[] {
  const found = new Set<string>();
  for (const entry of searched.slice(0, 20)) {
    const parts = entry.split(".").length;
    const tails = new Set(
      names.map((name) => (parts === 1 ? leafOf(name) : name.split(".").slice(-parts).join("."))),
    );
    for (const name of nearest(entry, tails, 1)) if (name !== entry) found.add(name);
  }
  return [...found].slice(0, 3);
}

const parameterNames = (tree: ModuleTree): string[] =>
  tree.modules.flatMap(({ name, parameters }) => parameters.map(([own]) => `${name}.${own}`));

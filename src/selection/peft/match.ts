import { failure } from "../failure.ts";
import { type LayerFilter, type LayerHit, makeLayerFilter } from "./layer-filter.ts";
import type { ResolvedConfig } from "./options.ts";
import { matchesPart, type Pattern, type Patterns } from "./patterns.ts";
import { Tails } from "./tails.ts";

/** Why a module is, or is not, a target; the first rule that decides. */
export type MatchResult =
  | {
      readonly status: "matched";
      /** regex: the whole name; name: listed literally, layers are not looked at; suffix: a dotted tail. */
      readonly rule: "regex" | "name" | "suffix";
      readonly entry: string;
      readonly layer?: LayerHit;
    }
  | {
      readonly status: "excluded";
      readonly rule: "exclude-modules" | "modules-to-save";
      readonly entry: string;
    }
  | {
      readonly status: "unmatched";
      /** no-targets: only parameters are targeted; no-layer: no layer index in the name; layer: another index. */
      readonly rule: "no-targets" | "regex" | "no-entry" | "no-layer" | "layer";
      readonly entry?: string;
      readonly layer?: LayerHit;
    };

/** Decides one module by its name. */
export type Matcher = (name: string) => MatchResult;

/**
 * The module rule of PEFT for a configuration, with every pattern and list prepared once.
 * The order: excluded, saved, regex or (name, suffix, layers).
 * @throws SelectionError from the returned function, on the first use of a broken pattern.
 * Source: PEFT 0.21 `check_target_module_exists`.
 */
export function makeMatcher(config: ResolvedConfig, patterns: Patterns): Matcher {
  const excluded = makeExclusion(config, patterns);
  const wanted = makeTargetRule(config, patterns);
  return (name) => excluded(name) ?? wanted(name);
}

type Excluded = Extract<MatchResult, { status: "excluded" }>;

function makeExclusion(config: ResolvedConfig, patterns: Patterns): (name: string) => Excluded | undefined {
  const { excludeModules } = config;
  const saved = config.modulesToSave === null ? [] : [...config.modulesToSave];
  const tails =
    typeof excludeModules === "string" || excludeModules === null ? null : new Tails(excludeModules);
  let regex: Pattern | undefined;
  return (name) => {
    if (typeof excludeModules === "string" && excludeModules !== "") {
      regex ??= patterns.get(excludeModules, "excludeModules");
      if (regex.fullmatch(name) !== null)
        return { status: "excluded", rule: "exclude-modules", entry: excludeModules };
    }
    const entry = tails?.find(name);
    if (entry !== undefined) return { status: "excluded", rule: "exclude-modules", entry };
    for (const part of saved)
      if (matchesPart(patterns, part, name, "modulesToSave"))
        return { status: "excluded", rule: "modules-to-save", entry: part };
    return undefined;
  };
}

function makeTargetRule(config: ResolvedConfig, patterns: Patterns): Matcher {
  const { targetModules, targetParameters } = config;
  if (targetModules === null) {
    const result: MatchResult = { status: "unmatched", rule: "no-targets" };
    return () => {
      if (targetParameters === null) throw noTargetsAtAll();
      return result;
    };
  }
  if (typeof targetModules === "string") {
    const hit: MatchResult = { status: "matched", rule: "regex", entry: targetModules };
    const miss: MatchResult = { status: "unmatched", rule: "regex", entry: targetModules };
    let regex: Pattern | undefined;
    return (name) => {
      regex ??= patterns.get(targetModules, "targetModules");
      return regex.fullmatch(name) === null ? miss : hit;
    };
  }
  const tails = new Tails(targetModules);
  const filter = makeLayerFilter(config, patterns);
  const miss: MatchResult = { status: "unmatched", rule: "no-entry" };
  const hits = new Map<string, MatchResult>();
  return (name) => {
    const entry = tails.find(name);
    if (entry === undefined) return miss;
    if (tails.has(name)) return { status: "matched", rule: "name", entry: name };
    if (filter !== undefined) return filterLayer(filter, name, entry);
    let hit = hits.get(entry);
    if (hit === undefined) {
      hit = { status: "matched", rule: "suffix", entry };
      hits.set(entry, hit);
    }
    return hit;
  };
}

function filterLayer(filter: LayerFilter, name: string, entry: string): MatchResult {
  const layer = filter.find(name);
  if (layer === undefined) return { status: "unmatched", rule: "no-layer", entry };
  return filter.accepts(layer.index)
    ? { status: "matched", rule: "suffix", entry, layer }
    : { status: "unmatched", rule: "layer", entry, layer };
}

const noTargetsAtAll = () =>
  failure(
    "inject",
    "TypeError",
    "other",
    "targetModules and targetParameters are both null; set one of them.",
  );

import { makeMatcher } from "../peft/match.ts";
import { isTruthy, type ResolvedConfig } from "../peft/options.ts";
import { matchesPart, type Patterns } from "../peft/patterns.ts";
import { Tails } from "../peft/tails.ts";
import { layerTest } from "./layers.ts";
import type { Rules } from "./rules.ts";

/**
 * The module rule of an older release: is the module of this name taken?
 * Source: `check_target_module_exists` and `inject_adapter` of PEFT 0.3 to 0.20 (`_find_and_replace` before 0.5).
 */
export function olderMatcher(
  config: ResolvedConfig,
  rules: Rules,
  patterns: Patterns,
): (name: string) => boolean {
  const isExcluded = exclusion(config, rules, patterns);
  const isWanted = targetRule(config, rules, patterns);
  return (name) => !isExcluded(name) && isWanted(name);
}

function exclusion(config: ResolvedConfig, rules: Rules, patterns: Patterns): (name: string) => boolean {
  const saved = [...(config.modulesToSave ?? [])];
  const isSaved: (name: string) => boolean =
    rules.saved === "part"
      ? (name) => saved.some((part) => matchesPart(patterns, part, name, "modulesToSave"))
      : rules.saved === "any-end"
        ? (name) => saved.some((part) => name.endsWith(part))
        : () => false;
  if (!rules.excludes || !isTruthy(config.excludeModules)) return isSaved;
  const excludes = makeMatcher({ ...config, modulesToSave: null, targetModules: new Set() }, patterns);
  return (name) => isSaved(name) || excludes(name).status === "excluded";
}

function targetRule(config: ResolvedConfig, rules: Rules, patterns: Patterns): (name: string) => boolean {
  const { targetModules } = config;
  if (targetModules === null) return () => false;
  if (typeof targetModules === "string")
    return (name) => patterns.get(targetModules, "targetModules").fullmatch(name) !== null;
  const isEntry = entryRule([...targetModules], rules, patterns);
  const isInLayers = layerTest(config, rules, patterns);
  if (isInLayers === undefined) return isEntry;
  const isExempt =
    rules.layers === "common"
      ? () => false
      : (name: string) =>
          targetModules instanceof Set ? targetModules.has(name) : [...targetModules].includes(name);
  return (name) => isEntry(name) && (isExempt(name) || isInLayers(name));
}

function entryRule(entries: readonly string[], rules: Rules, patterns: Patterns): (name: string) => boolean {
  if (rules.entries === "any-end") return (name) => entries.some((entry) => name.endsWith(entry));
  if (rules.entries === "tail") {
    const tails = new Tails(entries);
    return (name) => tails.find(name) !== undefined;
  }
  return (name) =>
    entries.some(
      (entry) => entry === name || patterns.get(`.*\\.${entry}$`, "targetModules").match(name) !== null,
    );
}

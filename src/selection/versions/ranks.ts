import type { ResolvedConfig } from "../peft/options.ts";
import { PatternLookup, type Patterns } from "../peft/patterns.ts";
import type { Rules } from "./rules.ts";

export type RankAndAlpha = { readonly r: number; readonly alpha: number };

/** Looks rank and alpha of a target up by older rules. */
export function rankLookup(
  { r, loraAlpha, rankPattern, alphaPattern }: ResolvedConfig,
  rules: Rules,
  patterns: Patterns,
): (name: string) => RankAndAlpha {
  const fallback: RankAndAlpha = { r, alpha: loraAlpha };
  const isEmpty = (rankPattern?.size ?? 0) + (alphaPattern?.size ?? 0) === 0;
  if (rules.patterns === "ignored" || isEmpty) return () => fallback;
  if (rules.patterns === "tail") {
    const ranks = new PatternLookup(patterns, rankPattern, "rankPattern");
    const alphas = new PatternLookup(patterns, alphaPattern, "alphaPattern");
    return (name) => ({ r: ranks.valueFor(name, r), alpha: alphas.valueFor(name, loraAlpha) });
  }
  const find = (keys: readonly string[], name: string): string =>
    keys.find((key) => patterns.get(`.*\\.${key}$`, "rankPattern").match(name) !== null) ?? name;
  const rankKeys = [...(rankPattern?.keys() ?? [])];
  const alphaKeys = [...(alphaPattern?.keys() ?? [])];
  const isJoint = rules.patterns === "after-dot-joint";
  const jointKeys = [...rankKeys, ...alphaKeys];
  return (name) => ({
    r: rankPattern?.get(find(isJoint ? jointKeys : rankKeys, name)) ?? r,
    alpha: alphaPattern?.get(find(isJoint ? jointKeys : alphaKeys, name)) ?? loraAlpha,
  });
}

import { RegexError } from "../../../errors.ts";
import { compile, type Pattern } from "../../../regex/index.ts";
import { quoteEntry } from "../../peft/reason.ts";
import { compileWith, longestTried } from "../near.ts";
import { type Alternatives, alternativesOf, only } from "./alternatives.ts";
import { countOf, type LintContext } from "./context.ts";

/** How often names are tried against single alternatives; enough for models of a few thousand targets. */
const tryLimit = 60_000;

/** A regex for the targets: alternatives that take nothing, and what it would match with `.*` in front. */
export function lintRegex(context: LintContext): void {
  const { given, isAllLinear, moved } = context.preparation.steps;
  if (typeof given !== "string" || isAllLinear || context.preparation.isDummy) return;
  const pattern = tryCompile(given);
  if (pattern === undefined) return;
  if (moved !== null) {
    lintMoved(context, given, pattern);
    return;
  }
  if (context.targets.length === 0) {
    lintUnmatched(context, given);
    return;
  }
  lintAlternatives(context, given);
}

function lintUnmatched(context: LintContext, source: string): void {
  const count = countWithPrefix(context, source);
  if (count === 0) return;
  context.warn(
    "regex-needs-prefix",
    `targetModules: the regex ${quoteEntry(source)} must match whole names; with ".*" in front it matches ${countOf(count)}.`,
    { pattern: source, matches: count },
  );
}

function countWithPrefix(context: LintContext, source: string): number {
  if (source.startsWith(".*") || source.length > longestTried) return 0;
  const prefixed = compileWith(".*", source);
  return prefixed === undefined
    ? 0
    : context.names.filter((name) => prefixed.fullmatch(name) !== null).length;
}

function lintAlternatives(context: LintContext, source: string): void {
  const groups = source.length > longestTried ? [] : (alternativesOf(source) ?? []);
  const dead: { group: Alternatives; branch: number }[] = [];
  let tries = 0;
  for (const group of groups)
    for (let branch = 0; branch < group.branches.length; branch++) {
      if (isWithin(dead, group)) continue;
      const pattern = tryCompile(only(source, group, branch));
      if (pattern === undefined) continue;
      const isDead = !context.targets.some((name) => {
        tries++;
        return tries > tryLimit || pattern.fullmatch(name) !== null;
      });
      if (tries > tryLimit) return;
      if (isDead) dead.push({ group, branch });
    }
  for (const { group, branch } of dead) describeDead(context, source, group, branch);
}

function describeDead(context: LintContext, source: string, group: Alternatives, branch: number): void {
  const { start, end } = group.branches[branch]!;
  const alternative = source.slice(start, end);
  const matches = group.parent === null ? countWithPrefix(context, alternative) : 0;
  const nearest = /^(?=.*[a-z_])[\w.-]+$/i.test(alternative) ? context.nearestTails(alternative) : [];
  const note =
    matches > 0
      ? `; with ".*" in front it matches ${countOf(matches)}`
      : nearest.length > 0
        ? ` (nearest: "${nearest[0]}")`
        : "";
  context.warn(
    matches > 0 ? "regex-needs-prefix" : "regex-alternative-unmatched",
    `targetModules: the alternative ${quoteEntry(alternative)} of the regex takes no module${note}.`,
    { pattern: source, alternative, ...(matches > 0 ? { matches } : { nearest }) },
  );
}

function isWithin(dead: readonly { group: Alternatives; branch: number }[], group: Alternatives): boolean {
  for (let inner = group.parent; inner !== null; inner = inner.group.parent) {
    const { group: outer, branch } = inner;
    if (dead.some((found) => found.group === outer && found.branch === branch)) return true;
  }
  return false;
}

/** In models with stacked experts PEFT turns a regex into the last parts of the names that it matches. */
function lintMoved(context: LintContext, source: string, pattern: Pattern): void {
  const others = context.targets.filter((name) => pattern.fullmatch(name) === null);
  if (others.length === 0) return;
  context.warn(
    "regex-becomes-list",
    `targetModules: for model type "${context.tree.modelType}" PEFT turns the regex ${quoteEntry(source)} into a list of last name ` +
      `parts, so it also takes ${countOf(others.length)} that it does not match, such as "${others[0]}".`,
    { pattern: source, modules: others },
  );
}

function tryCompile(source: string): Pattern | undefined {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof RegexError) return undefined;
    throw error;
  }
}

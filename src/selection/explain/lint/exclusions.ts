import { RegexError } from "../../../errors.ts";
import { compile } from "../../../regex/index.ts";
import { makeMatcher } from "../../peft/match.ts";
import { isTruthy } from "../../peft/options.ts";
import { quoteEntry } from "../../peft/reason.ts";
import { Tails } from "../../peft/tails.ts";
import { parentOf } from "../../python.ts";
import { compileWith, longestTried } from "../near.ts";
import { countOf, type LintContext, nearestNote } from "./context.ts";

/** Exclusions that match nothing, or only modules around targets, which excludes none of these. */
export function lintExclusions(context: LintContext): void {
  const { config, patterns } = context.preparation;
  const { excludeModules } = config;
  if (excludeModules === null || !isTruthy(excludeModules)) return;
  const byEntry = excludedBy(context, excludeModules);
  if (byEntry === undefined) return;
  const otherwise = makeMatcher({ ...config, excludeModules: null }, patterns);
  const unmatched = [...byEntry].filter(([, names]) => names.length === 0).map(([entry]) => entry);
  const isNone = unmatched.length === byEntry.size;
  if (unmatched.length > 0)
    context.warn(
      isNone ? "exclude-matched-nothing" : "exclude-entry-unmatched",
      `excludeModules: ${unmatched.map((entry) => `${quoteEntry(entry)} excludes nothing${hint(context, entry)}`).join("; ")}.`,
      { entries: unmatched },
    );
  for (const [entry, names] of byEntry) {
    if (names.length === 0 || names.some((name) => otherwise(name).status === "matched")) continue;
    const inside = insideOf(context, new Set(names));
    if (inside.length === 0) continue;
    context.warn(
      "exclude-not-recursive",
      `excludeModules: ${quoteEntry(entry)} excludes ${names.length === 1 ? `"${names[0]}"` : countOf(names.length)}, which no target is, but not what is ` +
        `inside: ${countOf(inside.length, "target")}, such as "${inside[0]}". To exclude those too, use the regex ".*${escapeDots(entry)}\\..*".`,
      { entry, modules: names, inside },
    );
  }
}

const escapeDots = (entry: string): string =>
  /^[\w.-]+$/.test(entry) ? entry.replaceAll(".", "\\.") : `(?:${entry})`;

function excludedBy(
  context: LintContext,
  entries: string | Iterable<string>,
): Map<string, string[]> | undefined {
  const found = new Map<string, string[]>();
  if (typeof entries !== "string") {
    const tails = new Tails(entries);
    for (const entry of entries) found.set(entry, []);
    for (const name of context.names) for (const hit of tails.findAll(name)) found.get(hit)!.push(name);
    return found;
  }
  try {
    const pattern = compile(entries);
    return found.set(
      entries,
      context.names.filter((name) => name !== "" && pattern.fullmatch(name) !== null),
    );
  } catch (error) {
    if (error instanceof RegexError) return undefined;
    throw error;
  }
}

function hint(context: LintContext, entry: string): string {
  if (typeof context.preparation.config.excludeModules === "string") {
    const prefixed =
      entry.startsWith(".*") || entry.length > longestTried ? undefined : compileWith(".*", entry);
    const count =
      prefixed === undefined ? 0 : context.names.filter((name) => prefixed.fullmatch(name) !== null).length;
    return count === 0
      ? ""
      : ` (a regex must match whole names; with ".*" in front it matches ${countOf(count)})`;
  }
  if (/[\\*^$|[(+?{]/.test(entry)) return " (entries of a list are plain names, not patterns)";
  return nearestNote(context.nearestTails(entry));
}

function insideOf(context: LintContext, containers: ReadonlySet<string>): string[] {
  return context.targets.filter((name) => {
    for (let around = parentOf(name); around !== ""; around = parentOf(around))
      if (containers.has(around)) return true;
    return false;
  });
}

/** Entries of `modulesToSave` that end no module's name. PEFT says nothing of them. */
export function lintSaved(context: LintContext, given: unknown): void {
  if (typeof given !== "object" || given === null) return;
  const paths = [...context.names, ...context.tree.duplicateModules.map(([path]) => path)];
  for (const entry of given as Iterable<string>) {
    if (paths.some((name) => name !== "" && name.endsWith(entry))) continue;
    context.warn(
      "save-entry-unmatched",
      `modulesToSave: ${quoteEntry(entry)} is the end of no module's name${nearestNote(context.nearestTails(entry))}; PEFT saves nothing for it.`,
      { entry, nearest: context.nearestTails(entry) },
    );
  }
}

/** Entries of `targetParameters` that no parameter has. */
export function lintParameters(context: LintContext, given: Iterable<string> | null | undefined): void {
  if (given === null || given === undefined || typeof given === "string") return;
  const entries = [...given];
  if (entries.length === 0) return;
  const tails = new Tails(entries);
  const missing = new Set(entries);
  const known = new Set<string>();
  for (const { name, parameters } of context.tree.modules)
    for (const [own] of parameters) {
      const key = `${name}.${own}`;
      for (const hit of tails.findAll(key)) missing.delete(hit);
      known.add(key.split(".").slice(-2).join("."));
    }
  if (missing.size === 0) return;
  const named = [...missing].map((entry) => {
    const modules = context.names.filter((name) => name === entry || name.endsWith(`.${entry}`));
    return `${quoteEntry(entry)} is no parameter${modules.length > 0 ? ` but a module ("${modules[0]}"); name its parameter, e.g. "${entry}.weight"` : ""}`;
  });
  context.warn(
    missing.size === entries.length && context.selection !== undefined && context.selection.targets.length > 0
      ? "parameters-unmatched"
      : "parameter-entry-unmatched",
    `targetParameters: ${named.join("; ")}.`,
    { entries: [...missing] },
  );
}

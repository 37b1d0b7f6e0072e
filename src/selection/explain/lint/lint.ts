import { targetProblems } from "../../peft/inject.ts";
import type { SelectionConfig } from "../../peft/options.ts";
import type { Selection } from "../../peft/selection.ts";
import type { ModuleTree } from "../../tree.ts";
import { foldNames } from "../fold.ts";
import { contextOf, countOf, type LintContext, type LintWarning } from "./context.ts";
import { lintHeads, lintHybrids, lintTowers } from "./coverage.ts";
import { lintEntries } from "./entries.ts";
import { lintExclusions, lintParameters, lintSaved } from "./exclusions.ts";
import { lintPatternTables } from "./patterns.ts";
import { lintRegex } from "./regexes.ts";

/**
 * What in a configuration was probably not meant on this model: entries, patterns, layers, exclusions and keys that
 * match nothing or something else, towers hit by accident, layer kinds left out, modules that cannot carry LoRA.
 *
 * Says more than PEFT, and of what PEFT warns of too, under the same code, in more detail: see `mergeWarnings`.
 * Where PEFT fails, what can be checked is checked all the same.
 * @param selection what the configuration selects, where that is known already.
 */
export function lintSelection(
  tree: ModuleTree,
  config: SelectionConfig,
  selection?: Selection | undefined,
): LintWarning[] {
  const context = contextOf(tree, config, selection);
  if (context === undefined) return [];
  lintEntries(context);
  lintRegex(context);
  lintExclusions(context);
  lintSaved(context, config.modulesToSave);
  lintParameters(context, config.targetParameters);
  lintPatternTables(context);
  lintTowers(context);
  lintHeads(context);
  lintHybrids(context);
  if (context.selection === undefined) lintKinds(context, tree);
  return context.warnings;
}

/** All matched modules that cannot be adapted; PEFT names the first. */
function lintKinds(context: LintContext, tree: ModuleTree): void {
  const matched = new Set(context.targets);
  const indices = context.names.flatMap((name, index) => (matched.has(name) ? [index] : []));
  const classes = new Map(context.tree.modules.map(({ name, className }) => [name, className]));
  const byCause = new Map<string, { code: string; className: string; names: string[] }>();
  for (const [name, { code }] of targetProblems(context.preparation, tree, indices)) {
    const className = classes.get(name) ?? "module";
    const key = `${code} ${className}`;
    const known = byCause.get(key);
    if (known === undefined) byCause.set(key, { code, className, names: [name] });
    else known.names.push(name);
  }
  for (const { code, className, names } of byCause.values()) {
    const shown = foldNames(names, context.structure).map(({ text }) => text);
    const more = shown.length > 4 ? `, … ${shown.length - 4} more` : "";
    const why = code === "unsupported-module-type" ? "cannot carry LoRA" : `cannot be adapted (${code})`;
    context.warn(
      code,
      `${countOf(names.length, className)} ${names.length === 1 ? "is" : "are"} matched but ${why}: ${shown.slice(0, 4).join(", ")}${more}.`,
      { className, modules: names },
    );
  }
}

type Said = { readonly code: string; readonly message: string };

/** Both kinds of warnings, nothing said twice: of PEFT's, those that the lint says more of give way. */
export function mergeWarnings<W extends Said>(
  selected: readonly W[],
  lint: readonly LintWarning[],
): (W | LintWarning)[] {
  const codes = new Set(lint.map(({ code }) => code));
  return [...selected.filter(({ code }) => !codes.has(code)), ...lint];
}

import { GraftError } from "../../../errors.ts";
import { targetProblems } from "../../peft/inject.ts";
import type { SelectionConfig } from "../../peft/options.ts";
import type { Selection } from "../../peft/selection.ts";
import type { ModuleTree } from "../../tree.ts";
import { type Attribution, attributeSelection } from "../attribution.ts";
import { type CompiledLike, isCompiled } from "../compiled.ts";
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
 * Groups that were compiled say what is wrong with them when they are compiled; of them only the rest is checked.
 * @param selection what the configuration selects, where that is known already.
 */
export function lintSelection(
  tree: ModuleTree,
  config: SelectionConfig | CompiledLike,
  selection?: Selection | undefined,
): LintWarning[] {
  if (isCompiled(config)) return lintCompiled(tree, config);
  const context = contextOf(tree, config, selection);
  if (context === undefined) return [];
  for (const check of [
    lintEntries,
    lintRegex,
    lintExclusions,
    () => lintSaved(context, config.modulesToSave),
    () => lintParameters(context, config.targetParameters),
    lintPatternTables,
    () => lintTowers(context, separatesTowers(context) ? [] : attributionOf(context)),
    lintHeads,
    () => choosesLayers(context) || lintHybrids(context),
    () => context.selection ?? lintKinds(context, tree),
  ])
    try {
      check(context);
    } catch (error) {
      // a rule that cannot be applied, such as a broken pattern, is what the selection fails with
      if (!(error instanceof GraftError)) throw error;
    }
  return context.warnings;
}

/** A filter, or a regex with numbers in it. */
const choosesLayers = ({ preparation: { config, steps } }: LintContext): boolean =>
  config.layersToTransform !== null || (typeof steps.given === "string" && /[0-9]|\\d/.test(steps.given));

/** A regex says itself which towers are meant. */
const separatesTowers = ({ preparation: { steps } }: LintContext): boolean =>
  typeof steps.given === "string" && !steps.isAllLinear;

const attributionOf = ({ selection, targets, preparation }: LintContext): Attribution =>
  preparation.steps.isAllLinear
    ? [{ by: { entry: "all-linear", option: "targetModules" }, names: targets }]
    : selection === undefined
      ? []
      : attributeSelection(selection);

/** What groups and their entries do not say of themselves; the compiled configuration is as it is meant to be. */
function lintCompiled(tree: ModuleTree, compiled: CompiledLike): LintWarning[] {
  const { config, groups, selection } = compiled;
  const context = contextOf(tree, config, selection);
  if (context === undefined) return [];
  lintSaved(context, config.modulesToSave);
  lintParameters(context, config.targetParameters);
  const anywhere = groups.filter(({ spec }) => spec.layers === undefined || spec.layers === null);
  lintTowers(
    context,
    anywhere.flatMap(({ entries }) =>
      entries
        .filter(({ kind, negative }) => !negative && (kind === "name" || kind === "all-linear"))
        .map(({ entry, modules }) => ({ by: { entry, option: "targetModules" as const }, names: modules })),
    ),
  );
  if (anywhere.length === groups.length) lintHybrids(context);
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

import { listedProblems } from "../../../errors.ts";
import { type LayerFilter, makeLayerFilter } from "../../peft/layer-filter.ts";
import { makeMatcher } from "../../peft/match.ts";
import { quoteEntry, wantedLayers } from "../../peft/reason.ts";
import { Tails } from "../../peft/tails.ts";
import { numberRanges } from "../fold.ts";
import { countOf, type LintContext, nearestNote } from "./context.ts";
import { lintLayers } from "./layers.ts";

/** What became of the modules that an entry matches by name. */
type EntryCount = {
  matched: number;
  taken: number;
  excluded: number;
  /** Layer indices of those that are in other layers; undefined: without an index. */
  readonly outside: Set<number | undefined>;
};

/** Entries of a list: that match nothing, only other layers, or only what is excluded; and the layers they are in. */
export function lintEntries(context: LintContext): void {
  const { config, patterns, steps } = context.preparation;
  const { given } = steps;
  if (given === null || typeof given === "string") return;
  const entries = [...given].filter((entry) => !steps.moved?.has(entry));
  if (allTake(context, entries)) return;
  const tails = new Tails(entries);
  const counts = new Map<string, EntryCount>(
    entries.map((entry) => [entry, { matched: 0, taken: 0, excluded: 0, outside: new Set() }]),
  );
  const filter = makeLayerFilter(config, patterns);
  const match = makeMatcher(config, patterns);
  const found: string[] = [];
  const bypassing: string[] = [];
  for (const name of context.names) {
    const hits = tails.findAll(name);
    if (hits.length === 0) continue;
    found.push(name);
    const result = match(name);
    for (const hit of hits) {
      const count = counts.get(hit)!;
      count.matched++;
      if (result.status === "matched") count.taken++;
      else if (result.status === "excluded") count.excluded++;
      else count.outside.add("layer" in result ? result.layer?.index : undefined);
    }
    if (
      filter !== undefined &&
      result.status === "matched" &&
      result.rule === "name" &&
      !isInside(filter, name)
    )
      bypassing.push(name);
  }
  const unmatched = entries.filter((entry) => counts.get(entry)!.matched === 0);
  for (const entry of unmatched.slice(0, listedProblems)) describeUnmatched(context, entry);
  const more = unmatched.slice(listedProblems);
  if (more.length > 0)
    context.warn(
      "entry-matched-nothing",
      `targetModules: ${countOf(more.length, "more entry", "more entries")} match no module, such as ${quoteEntry(more[0]!)}.`,
      { entries: more },
    );
  for (const [entry, count] of counts)
    if (count.matched > 0) describe(context, entry, count, filter !== undefined);
  if (bypassing.length > 0)
    context.warn(
      "name-bypasses-layers",
      `layersToTransform does not apply to modules that targetModules lists by their full name: ` +
        `${countOf(bypassing.length)} outside of the chosen layers ${bypassing.length === 1 ? "is" : "are"} taken, such as "${bypassing[0]}".`,
      { modules: bypassing },
    );
  if (filter !== undefined) lintLayers(context, filter, found);
}

/** The usual case, told from the targets alone: each entry takes something, in whatever layer. */
function allTake({ selection, preparation }: LintContext, entries: readonly string[]): boolean {
  const { layersToTransform } = preparation.config;
  if (selection === undefined || layersToTransform !== null) return false;
  const missing = new Set(entries);
  for (const { reason } of selection.targets) {
    missing.delete(reason.entry);
    if (missing.size === 0) return true;
  }
  return missing.size === 0;
}

function isInside(filter: LayerFilter, name: string): boolean {
  const hit = filter.find(name);
  return hit !== undefined && filter.accepts(hit.index);
}

function describe(context: LintContext, entry: string, count: EntryCount, hasFilter: boolean): void {
  if (count.taken > 0) return;
  const quoted = quoteEntry(entry);
  if (count.excluded === count.matched) {
    context.warn(
      "entry-excluded",
      `targetModules: all ${countOf(count.matched)} that ${quoted} matches are excluded, by excludeModules or modulesToSave.`,
      { entry, matched: count.matched },
    );
    return;
  }
  if (!hasFilter) return;
  const indices = [...count.outside].filter((index) => index !== undefined);
  const wanted = wantedLayers(context.preparation.config).join(", ");
  context.warn(
    "entry-outside-layers",
    `targetModules: ${quoted} matches ${countOf(count.matched)}, but none in the chosen layers [${wanted}]: ` +
      (indices.length === 0
        ? `their names have no layer index there.${indexHint(context)}`
        : `they are in layers ${numberRanges(indices)}${count.outside.has(undefined) ? ", or in none" : ""}.`),
    { entry, matched: count.matched, layers: indices.sort((a, b) => a - b) },
  );
}

/** Why PEFT may not see an index that a person sees. */
function indexHint({ preparation, structure }: LintContext): string {
  const top = structure.lists.find(({ path }) => path !== "" && !path.includes("."));
  return preparation.config.layersPattern === null && top !== undefined
    ? ` PEFT sees a list at the top of the model only with layersPattern: set it to "${top.path}".`
    : "";
}

function describeUnmatched(context: LintContext, entry: string): void {
  const quoted = quoteEntry(entry);
  const details = { entry, nearest: context.nearestTails(entry) };
  if (entry.toLowerCase() === "all-linear")
    context.warn(
      "entry-is-pattern",
      `targetModules: "${entry}" stands for all linear layers only by itself; in a list it is a name, and no module has it.`,
      details,
    );
  else if (/[\\*^$|[(+?{]/.test(entry))
    context.warn(
      "entry-is-pattern",
      `targetModules: ${quoted} matches no module: entries of a list are plain names to PEFT, not patterns. ` +
        "Give one regular expression instead of a list, or a selection of groups, whose entries may be patterns.",
      details,
    );
  else
    context.warn(
      "entry-matched-nothing",
      `targetModules: ${quoted} matches no module${hint(context, entry)}.`,
      details,
    );
}

function hint(context: LintContext, entry: string): string {
  const withoutPrefix = entry.replace(/^base_model\.model\./, "");
  const without = withoutPrefix.replace(/\.(weight|bias)$/, "");
  if (without !== entry && context.names.some((name) => name === without || name.endsWith(`.${without}`)))
    return withoutPrefix === without
      ? `: leave out PEFT's own "base_model.model."`
      : `: it names a parameter; "${without}" is the module`;
  return nearestNote(context.nearestTails(entry));
}

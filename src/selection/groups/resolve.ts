import { SelectionError } from "../../errors.ts";
import { Warnings } from "../failure.ts";
import { allLinearNames } from "../peft/all-linear.ts";
import {
  defaultTargetModules,
  headsByTaskType,
  mambaForbiddenLeaves,
  mambaModelTypes,
} from "../peft/defaults.ts";
import type { Names, PatternTable, SelectionConfig } from "../peft/options.ts";
import { matchesPart, PatternLookup, Patterns } from "../peft/patterns.ts";
import { leafOf } from "../python.ts";
import { structureOf } from "../structure/index.ts";
import { adaptableKinds, type ModuleInfo, type ModuleTree } from "../tree.ts";
import type { PlacedEntry } from "./entries.ts";
import { parseEntry } from "./entry.ts";
import { type GroupOutcome, type Model, resolveGroup } from "./group.ts";
import type { Report } from "./layers.ts";
import { GroupProblems, quote } from "./problems.ts";
import type { CompiledGroup, GroupedSelection, GroupSpec, GroupWarning } from "./spec.ts";
import { reportEntries } from "./warn.ts";

/** Rank and alpha of a module. */
export type Rank = { readonly r: number; readonly alpha: number };

export type ResolvedGroups = {
  readonly groups: readonly CompiledGroup[];
  /** Every module that a group takes, in the order of the model. */
  readonly wanted: ReadonlyMap<string, Rank>;
  readonly warnings: readonly GroupWarning[];
};

/** Options that say the same as groups do, in PEFT's way. */
const conflicting = ["targetModules", "layersToTransform", "layersPattern", "layerReplication"] as const;

/**
 * The modules of a selection's groups, and their ranks. Where several groups take a module, the last decides.
 * @throws SelectionError with `details.problems`: everything that is wrong with entries and layers; `no-match` if no
 * group takes a module.
 */
export function resolveGroups(tree: ModuleTree, spec: GroupedSelection): ResolvedGroups {
  const problems = new GroupProblems();
  const warnings: GroupWarning[] = [];
  checkOptions(spec, problems);
  const model = modelOf(tree, spec);
  const reports: Report[] = spec.groups.map(({ name }, index) => ({
    subject: subjectOf(spec.groups, index, name),
    problems,
    warnings,
  }));
  const outcomes = spec.groups.map((group, index) => {
    const report = reports[index]!;
    const entries = entriesOf(group, spec, tree, report);
    const outcome = resolveGroup(entries, group.layers, model, report);
    reportEntries(outcome, model, report);
    return outcome;
  });
  problems.throw();
  reportShared(outcomes, warnings);
  if (outcomes.every(({ modules }) => modules.length === 0))
    throw new SelectionError(
      `The selection takes no module. ${warnings.map(({ message }) => message).join(" ")}`.trim(),
      { code: "no-match", details: { warnings } },
    );
  outcomes.forEach(({ modules, entries }, index) => {
    const isExplained = entries.every(({ modules, entry }) => entry.isNegative || modules.length === 0);
    if (modules.length === 0)
      warnings.push({
        code: "group-empty",
        message: `${reports[index]!.subject}the group takes no module${isExplained ? "" : ", though its entries do"}.`,
        details: { group: index },
      });
  });
  const wanted = ranksOf(tree, spec, outcomes, warnings);
  const groups = spec.groups.map((group, index): CompiledGroup => {
    const { modules, entries } = outcomes[index]!;
    return {
      spec: group,
      modules,
      entries: entries.map(({ entry, matched, modules: taken }) => ({
        entry: entry.text,
        kind: entry.kind,
        negative: entry.isNegative,
        option: entry.option,
        matched,
        modules: taken,
      })),
    };
  });
  return { groups, wanted, warnings };
}

function checkOptions(spec: GroupedSelection, problems: GroupProblems): void {
  const { groups } = spec as { groups: unknown };
  if (!Array.isArray(groups) || groups.length === 0)
    throw new SelectionError(
      'groups must be a list of at least one group, such as [{ targetModules: ["q_proj"], layers: "last 4" }].',
      { code: "no-groups" },
    );
  for (const option of conflicting)
    if (spec[option] !== undefined && spec[option] !== null)
      problems.add("groups-conflict", `${option} cannot be used beside groups. Say it in a group.`, {
        option,
      });
}

function modelOf(tree: ModuleTree, spec: GroupedSelection): Model {
  const isMamba = mambaModelTypes.has(tree.modelType);
  const patterns = new Patterns(new Warnings());
  const heads = spec.taskType === "SEQ_CLS" ? headsByTaskType["SEQ_CLS"]! : [];
  const { modulesToSave } = spec;
  const saved = [...(typeof modulesToSave === "string" ? [modulesToSave] : (modulesToSave ?? [])), ...heads];
  return {
    modules: tree.modules,
    linear: linearNames(tree, spec),
    structure: () => structureOf(tree),
    canCarry: ({ name, kind }: ModuleInfo) =>
      adaptableKinds.has(kind) && !(isMamba && mambaForbiddenLeaves.has(leafOf(name))),
    isSaved: (name) => saved.some((entry) => matchesPart(patterns, entry, name, "modulesToSave")),
  };
}

function linearNames(tree: ModuleTree, { taskType = null }: SelectionConfig): ReadonlySet<string> {
  const names = tree.modules.map(({ name }) => name);
  return allLinearNames({ names, kindAt: (index) => tree.modules[index]!.kind }, tree, { taskType });
}

function subjectOf(groups: readonly GroupSpec[], index: number, name: string | undefined): string {
  if (groups.length === 1) return "";
  return `group ${index + 1}${name === undefined ? "" : ` (${name})`}: `;
}

function entriesOf(
  group: GroupSpec,
  { excludeModules }: GroupedSelection,
  tree: ModuleTree,
  report: Report,
): PlacedEntry[] {
  const given = group.targetModules ?? defaultsOf(tree, report);
  const targets = listOf(given).map(
    (text): PlacedEntry => ({ ...parseEntry(text), option: "targetModules" }),
  );
  if (targets.length === 0)
    report.problems.add(
      "no-entries",
      `${report.subject}targetModules is empty. Name modules, or write "all-linear" for every linear layer.`,
    );
  else if (targets.every(({ isNegative }) => isNegative))
    targets.unshift({ ...parseEntry("all-linear"), option: "targetModules" });
  const exclude = (names: string | Names | null | undefined, isShared: boolean): PlacedEntry[] =>
    listOf(names).map((text) => {
      const entry = parseEntry(text);
      if (entry.isNegative)
        report.problems.add(
          "invalid-entry",
          `${report.subject}excludeModules: the entry ${quote(text)} is negative. Name what to leave out without the "!".`,
          { entry: text },
        );
      return { ...entry, isNegative: true, option: "excludeModules", isShared };
    });
  return [...targets, ...exclude(group.excludeModules, false), ...exclude(excludeModules, true)];
}

/** PEFT's choice for the type of model, as entries. */
function defaultsOf(tree: ModuleTree, { subject, problems }: Report): readonly string[] {
  const { modelType } = tree;
  const targets = Object.hasOwn(defaultTargetModules, modelType)
    ? defaultTargetModules[modelType]!
    : undefined;
  if (targets === undefined) {
    problems.add(
      "no-default-targets",
      `${subject}there are no default target modules for model type "${modelType}". Set targetModules, for example "all-linear".`,
      { modelType },
    );
    return ["all-linear"];
  }
  return typeof targets === "string" ? [`regex:${targets}`] : targets;
}

const listOf = (names: string | Names | null | undefined): string[] =>
  names === null || names === undefined ? [] : typeof names === "string" ? [names] : [...new Set(names)];

/** Entries of the whole selection that took nothing away from any group. */
function reportShared(outcomes: readonly GroupOutcome[], warnings: GroupWarning[]): void {
  const shared = outcomes.map(({ entries }) => entries.filter(({ entry }) => entry.isShared));
  shared[0]?.forEach(({ entry, matched }, index) => {
    if (shared.some((entries) => entries[index]!.modules.length > 0)) return;
    warnings.push({
      code: "negative-removed-nothing",
      message: `excludeModules: the entry ${quote(entry.text)} takes nothing away${matched.length === 0 ? ", for it matches no module" : ""}.`,
      details: { entry: entry.text },
    });
  });
}

function ranksOf(
  tree: ModuleTree,
  spec: GroupedSelection,
  outcomes: readonly GroupOutcome[],
  warnings: GroupWarning[],
): ReadonlyMap<string, Rank> {
  const patterns = new Patterns(new Warnings());
  const ranks = new Lookup(patterns, spec.rankPattern, "rankPattern", spec.r ?? 8);
  const alphas = new Lookup(patterns, spec.alphaPattern, "alphaPattern", spec.loraAlpha ?? 8);
  const found = new Map<string, Rank & { readonly group: number }>();
  const disputes = new Map<string, string[]>();
  outcomes.forEach(({ modules }, group) => {
    const { r, loraAlpha } = spec.groups[group]!;
    for (const name of modules) {
      const rank = { r: r ?? ranks.of(name), alpha: loraAlpha ?? alphas.of(name), group };
      const before = found.get(name);
      found.set(name, rank);
      if (before === undefined || (before.r === rank.r && before.alpha === rank.alpha)) continue;
      const key = `${before.group + 1} (r ${before.r}, alpha ${before.alpha}) and ${group + 1} (r ${rank.r}, alpha ${rank.alpha})`;
      disputes.set(key, [...(disputes.get(key) ?? []), name]);
    }
  });
  for (const [groups, names] of disputes)
    warnings.push({
      code: "groups-overlap",
      message: `groups ${groups} both take ${JSON.stringify(names[0])}${names.length > 1 ? ` and ${names.length - 1} more` : ""}; the later one decides.`,
      details: { modules: names },
    });
  warnings.push(...ranks.warnings(), ...alphas.warnings());
  const wanted = new Map<string, Rank>();
  for (const { name } of tree.modules) {
    const rank = found.get(name);
    if (rank !== undefined) wanted.set(name, { r: rank.r, alpha: rank.alpha });
  }
  return wanted;
}

/** A rank or an alpha by PEFT's patterns, for modules whose group has none. */
class Lookup {
  readonly #lookup: PatternLookup;
  readonly #fallback: number;
  readonly #option: "rankPattern" | "alphaPattern";
  readonly #asked: string[] = [];

  constructor(
    patterns: Patterns,
    table: PatternTable | null | undefined,
    option: "rankPattern" | "alphaPattern",
    fallback: number,
  ) {
    const map = new Map<string, number>(table instanceof Map ? table : Object.entries(table ?? {}));
    this.#lookup = new PatternLookup(patterns, map, option);
    this.#fallback = fallback;
    this.#option = option;
  }

  of(name: string): number {
    this.#asked.push(name);
    return this.#lookup.valueFor(name, this.#fallback);
  }

  warnings(): GroupWarning[] {
    const keys = this.#lookup.unmatched(this.#asked);
    if (keys.length === 0) return [];
    const code = this.#option === "rankPattern" ? "rank-pattern-unmatched" : "alpha-pattern-unmatched";
    const shown = keys.map((key) => JSON.stringify(key)).join(", ");
    return [
      {
        code,
        message: `${this.#option}: ${shown} match no targeted module without a value of its group.`,
        details: { keys },
      },
    ];
  }
}

import { type Names, Tuple } from "../peft/options.ts";
import { leafOf, regexEscape } from "../python.ts";
import { type ListForm, layerLists, nameTails, plainList } from "./lists.ts";
import type { Places, Shape } from "./places.ts";
import { findAlternatives, joinAlternatives } from "./regex.ts";

/** How a selection is written. */
export type Form = "all-linear" | "list" | "list+layers" | "list+exclude" | "regex";

/** The fields that select, and how much there is to read. */
export type Candidate = {
  readonly form: Form;
  readonly cost: number;
  readonly targetModules: string | readonly string[];
  readonly layersToTransform?: readonly number[];
  readonly layersPattern?: string;
  /** Instead of the given one, which it includes. */
  readonly excludeModules?: string | readonly string[];
};

/** What candidates are made from. */
export type Problem = {
  readonly places: Places;
  readonly shapes: readonly Shape[];
  readonly wanted: ReadonlySet<string>;
  /** Modules that must not be selected; what is excluded anyhow is not among them. */
  readonly others: readonly string[];
  readonly linear: ReadonlySet<string>;
  /** Excluded already; entries can be added to a list only. */
  readonly excluded: string | Names | null;
  /** Whether the model type leaves regexes as they are. */
  readonly allowsRegex: boolean;
};

/** Up to this many names a list of tails with numbers is worth a look. */
const maxNumberedTails = 40;
/** No layers, exclusions or regex are read as easily as a list this cheap. */
const unbeatable = 24;
const maxExcluded = 16;
const maxExcludeEntries = 3;

/**
 * Candidates, the most readable first, without the last resorts. Where a few names do, nothing else is looked for; if
 * PEFT should take them otherwise than they read, the last resorts follow.
 */
export function candidatesFor(problem: Problem): Candidate[] {
  const { shapes, wanted, others, allowsRegex } = problem;
  const found: Candidate[] = [];
  const add = (candidate: Candidate | undefined): void => {
    if (candidate !== undefined) found.push(candidate);
  };
  add(allLinear(problem));
  const list = plainList(shapes, others);
  if (list !== undefined) add(asCandidate(list));
  else if (wanted.size <= maxNumberedTails) {
    const targets = nameTails(wanted, others);
    add(targets && asCandidate({ targets }));
  }
  const cheapest = (): number => Math.min(...found.map(({ cost }) => cost));
  if (cheapest() > unbeatable) {
    for (const form of layerLists(shapes)) add(asCandidate(form));
    for (const form of leafForms(problem)) add(form);
  }
  if (allowsRegex && cheapest() > unbeatable) {
    const alternatives = findAlternatives(shapes);
    if (alternatives !== undefined) {
      const targetModules = joinAlternatives(alternatives);
      add({ form: "regex", cost: regexCost(targetModules), targetModules });
    }
  }
  return found.sort((a, b) => a.cost - b.cost);
}

/** Every module by a tail of its own, or by its full name. */
export function lastResorts({ wanted, others, excluded, allowsRegex }: Problem): Candidate[] {
  const found: Candidate[] = [];
  const add = (form: Form, fields: Pick<Candidate, "targetModules" | "excludeModules">): void => {
    found.push({ form, cost: Infinity, ...fields });
  };
  const tails = nameTails(wanted, others);
  if (tails !== undefined) add("list", { targetModules: tails });
  // a full name may be the tail of another one
  const longer = others.filter((name) => {
    for (let dot = name.indexOf("."); dot !== -1; dot = name.indexOf(".", dot + 1))
      if (wanted.has(name.slice(dot + 1))) return true;
    return false;
  });
  const excludeModules = longer.length === 0 ? undefined : withEntries(excluded, longer);
  if (excludeModules !== undefined) add("list+exclude", { targetModules: [...wanted], excludeModules });
  if (allowsRegex) add("regex", { targetModules: [...wanted].map(regexEscape).join("|") });
  return found;
}

function allLinear({ linear, wanted, excluded }: Problem): Candidate | undefined {
  const excess = [...linear].filter((name) => !wanted.has(name));
  if (linear.size - excess.length !== wanted.size || wanted.size === 0 || excess.length > maxExcluded)
    return undefined;
  if (excess.length === 0) return { form: "all-linear", cost: 10, targetModules: "all-linear" };
  const entries = nameTails(excess, wanted);
  if (entries === undefined || entries.length > maxExcludeEntries) return undefined;
  const excludeModules = withEntries(excluded, entries);
  return (
    excludeModules && {
      form: "all-linear",
      cost: 10 + excludeCost(entries),
      targetModules: "all-linear",
      excludeModules,
    }
  );
}

function asCandidate({ targets, layers, pattern, areAllLayers }: ListForm): Candidate {
  if (layers === undefined) return { form: "list", cost: listCost(targets), targetModules: targets };
  const cost =
    listCost(targets) +
    layersCost(layers) +
    (pattern === undefined ? 0 : pattern.length + 4) +
    (areAllLayers ? 60 : 0);
  return {
    form: "list+layers",
    cost,
    targetModules: targets,
    layersToTransform: layers,
    ...(pattern === undefined ? {} : { layersPattern: pattern }),
  };
}

/** Last name parts, without what they take too much: a few entries, or a regex where `targetModules` cannot be one. */
function leafForms(problem: Problem): Candidate[] {
  const { wanted, others, excluded, allowsRegex, places } = problem;
  const leaves = [...new Set([...wanted].map(leafOf))].sort();
  if (wanted.size === 0 || leaves.some((leaf) => /^\d+$/.test(leaf))) return [];
  const known = new Set(leaves);
  const excess = others.filter((name) => known.has(leafOf(name)));
  if (excess.length === 0) return [];
  if (excess.length <= maxExcluded) {
    const entries = nameTails(excess, wanted);
    const excludeModules = entries && withEntries(excluded, entries);
    if (excludeModules !== undefined && entries!.length <= maxExcludeEntries)
      return [
        {
          form: "list+exclude",
          cost: listCost(leaves) + excludeCost(entries!),
          targetModules: leaves,
          excludeModules,
        },
      ];
  }
  if (allowsRegex || excluded !== null) return [];
  const complement = findAlternatives(places.shapesOf([...wanted, ...excess], new Set(excess)));
  if (complement === undefined) return [];
  const excludeModules = joinAlternatives(complement);
  return [
    {
      form: "list+exclude",
      cost: listCost(leaves) + regexCost(excludeModules),
      targetModules: leaves,
      excludeModules,
    },
  ];
}

/** The given exclusions and more; undefined if they are a regex. */
function withEntries(
  given: string | Names | null,
  entries: readonly string[],
): readonly string[] | undefined {
  if (given === null) return entries;
  if (typeof given === "string") return given === "" ? entries : undefined;
  return [...new Set([...(given instanceof Tuple ? given.items : given), ...entries])];
}

/** Characters to read; entries without numbers say what they mean, so they count less. */
const listCost = (entries: readonly string[]): number =>
  entries.reduce((sum, entry) => sum + (entry.length + 2) * (/\.\d+(?:\.|$)/.test(entry) ? 1 : 0.6), 0);

const excludeCost = (entries: readonly string[]): number => 12 + listCost(entries);

const regexCost = (regex: string): number => 10 + 2.5 * regex.length;

/** A run of layers, or every nth, is read at a glance, unless it is very long. */
function layersCost(layers: readonly number[]): number {
  let cost = 8 + layers.length;
  for (let i = 0; i < layers.length; ) {
    let end = i + 1;
    const step = (layers[end] ?? 0) - layers[i]!;
    while (end + 1 < layers.length && layers[end + 1]! - layers[end]! === step) end++;
    cost += end - i >= 2 ? 10 : 4;
    i = end - i >= 2 ? end + 1 : i + 1;
  }
  return cost;
}

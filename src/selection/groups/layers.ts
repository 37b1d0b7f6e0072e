import { nearest } from "../../errors.ts";
import type { NumberedList, Place, Position, Structure } from "../structure/index.ts";
import { compileEntry, type NameTest, parseEntry } from "./entry.ts";
import { compileTail } from "./glob.ts";
import { LayerExpression } from "./layer-expression.ts";
import { type GroupProblems, quote } from "./problems.ts";
import type { GroupWarning, LayersSpec, LayerValue } from "./spec.ts";

/** Decides where a module may be; undefined: anywhere. */
export type LayerRule = (place: Place) => boolean;

/** How a group is called in front of a message, and where what is wrong goes. */
export type Report = {
  readonly subject: string;
  readonly problems: GroupProblems;
  readonly warnings: GroupWarning[];
};

/**
 * The rule of a group's `layers`.
 *
 * Without names of lists, it applies to the outermost repeated list around a module. With names, a module must be in a
 * named list, and in the wanted layers of every named list that it is in.
 * @param places of the modules that the group would take without it: only lists around them are looked at.
 */
export function makeLayerRule(
  spec: LayersSpec,
  structure: Structure,
  places: readonly Place[],
  report: Report,
): LayerRule {
  if (isByList(spec)) {
    const entries: Iterable<readonly [string, LayerValue]> =
      spec instanceof Map ? spec : Object.entries(spec);
    return byList([...entries], structure, report);
  }
  const expression = parseValue(spec, "", report);
  if (expression === undefined) return () => false;
  const stackOf = outermostStack(structure);
  const lists = new Set(places.map(stackOf).filter((list) => list !== undefined));
  if (lists.size === 0 && places.length > 0)
    report.problems.add(
      "no-layers",
      `${report.subject}layers: none of the matched modules is in a numbered list of layers${listsOf(structure)}. Leave layers out.`,
    );
  const taken = takeOf([...lists], "", expression, report);
  return (place) => {
    const list = stackOf(place);
    const position = place.positions.find((step) => step.list === list);
    return position !== undefined && taken.get(position.list)!.has(position.index);
  };
}

/** What people call the layers around a module: the outermost list of items alike; any list in a model of one layer. */
function outermostStack({ stacks }: Structure): (place: Place) => NumberedList | undefined {
  const counts = stacks.length === 0 ? () => true : ({ list }: Position) => list.isRepeated;
  return ({ positions }) => positions.find(counts)?.list;
}

const isByList = (spec: LayersSpec): spec is Exclude<LayersSpec, LayerValue> =>
  typeof spec === "object" && spec !== null && !Array.isArray(spec);

type Named = {
  readonly pattern: string;
  readonly expression: LayerExpression;
  readonly lists: readonly NumberedList[];
};

function byList(
  entries: readonly (readonly [string, LayerValue])[],
  structure: Structure,
  report: Report,
): LayerRule {
  const named: Named[] = [];
  if (entries.length === 0)
    report.problems.add(
      "invalid-layers",
      `${report.subject}layers names no list. Name one, or leave layers out.`,
    );
  for (const [pattern, value] of entries) {
    const expression = parseValue(value, pattern, report);
    const test = listTest(pattern, report);
    if (test === undefined) continue;
    const lists = structure.lists.filter(({ path }) => test(path));
    if (lists.length === 0) reportUnknownList(pattern, structure, report);
    else if (expression !== undefined) named.push({ pattern, expression, lists });
  }
  const taken = new Map<NumberedList, ReadonlySet<number>>();
  for (const { pattern, expression, lists } of named)
    for (const [list, layers] of takeOf(lists, pattern, expression, report))
      taken.set(list, unite(taken.get(list), layers, list, report));
  return ({ positions }) => {
    let isNamed = false;
    for (const { list, index } of positions) {
      const layers = taken.get(list);
      if (layers === undefined) continue;
      if (!layers.has(index)) return false;
      isNamed = true;
    }
    return isNamed;
  };
}

function unite(
  before: ReadonlySet<number> | undefined,
  layers: ReadonlySet<number>,
  { path }: NumberedList,
  { subject, warnings }: Report,
): ReadonlySet<number> {
  if (before === undefined) return layers;
  if (before.size !== layers.size || [...layers].some((layer) => !before.has(layer)))
    warnings.push({
      code: "layers-overlap",
      message: `${subject}layers: two names stand for the list "${path}" and want different layers of it; it gets both. Use longer names.`,
      details: { list: path },
    });
  return new Set([...before, ...layers]);
}

/** The layers of each list; what no list has is a problem, what only some have a warning. */
function takeOf(
  lists: readonly NumberedList[],
  pattern: string,
  expression: LayerExpression,
  { subject, problems, warnings }: Report,
): Map<NumberedList, ReadonlySet<number>> {
  const taken = new Map<NumberedList, ReadonlySet<number>>();
  const missing = new Map<string, NumberedList[]>();
  for (const list of lists) {
    const found = expression.of(list.indices);
    taken.set(list, found.layers);
    for (const term of found.missing) missing.set(term, [...(missing.get(term) ?? []), list]);
  }
  for (const [term, without] of missing) {
    const where = without.slice(0, 3).map(describeList).join(", and not in ");
    const more = without.length > 3 ? `, nor in ${without.length - 3} more lists` : "";
    const message = `${subject}${layersOf(pattern)} ${quote(term)}: there is no such layer in ${where}${more}`;
    const details = { term, lists: without.map(({ path }) => path) };
    if (without.length === lists.length)
      problems.add("layer-out-of-range", `${message}. Use numbers of that range.`, details);
    else
      warnings.push({
        code: "layer-not-everywhere",
        message: `${message}; it takes what other lists have.`,
        details,
      });
  }
  return taken;
}

const layersOf = (pattern: string): string => (pattern === "" ? "layers" : `layers of ${quote(pattern)},`);

function describeList({ path, indices }: NumberedList): string {
  const first = indices[0]!;
  const last = indices.at(-1)!;
  const numbers = indices.length === 1 ? `only ${first}` : `${first}–${last}`;
  return `"${path}", which has ${numbers} (${indices.length === 1 ? "-1" : `-${indices.length} to -1`} from the end)`;
}

/** A list's path, or the end of it; `#` and `*` stand for the items of outer lists. */
function listTest(pattern: string, { subject, problems }: Report): NameTest | undefined {
  const entry = parseEntry(pattern.replaceAll("#", "*"));
  const { kind, body, isNegative } = entry;
  if (isNegative) {
    problems.add(
      "invalid-layers",
      `${subject}layers: a list cannot be named by what it is not (${quote(pattern)}). Put the "!" into its layers.`,
      { pattern },
    );
    return undefined;
  }
  const test = compileEntry(entry);
  if (typeof test !== "function") {
    problems.add(test.code, `${subject}layers: the list ${quote(pattern)} ${test.message}`, {
      pattern,
    });
    return undefined;
  }
  if (kind !== "regex") return test;
  // as PEFT's layersPattern: a regex for the end of the path
  const tail = compileTail(body);
  return (path) => tail.fullmatch(path) !== null;
}

function reportUnknownList(pattern: string, structure: Structure, { subject, problems }: Report): void {
  const near = nearestLists(pattern, structure);
  const hint =
    near.length > 0
      ? ` Closest: ${near.map((name) => JSON.stringify(name)).join(", ")}.`
      : ` Use one of its lists${listsOf(structure)}.`;
  problems.add("unknown-list", `${subject}layers: no list of layers is called ${quote(pattern)}.${hint}`, {
    pattern,
    nearest: near,
  });
}

/** Lists by how many parts of their path are like those of a pattern; then those whose whole name is like it. */
function nearestLists(pattern: string, { blocks }: Structure): string[] {
  if (pattern.length > 200) return [];
  const names = blocks.map((block) => block.pattern);
  const parts = [...new Set(blocks.flatMap(({ template }) => template.split(".")))];
  const similar = new Set(pattern.split(".").flatMap((part) => nearest(part, parts, 1)));
  const shared = blocks
    .map(({ pattern: name, template }) => ({
      name,
      count: template.split(".").filter((part) => part !== "#" && similar.has(part)).length,
    }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count);
  return [...new Set([...shared.map(({ name }) => name), ...nearest(pattern, names)])].slice(0, 3);
}

function listsOf({ blocks }: Structure): string {
  if (blocks.length === 0) return " (the model has none)";
  const shown = blocks.slice(0, 4).map(({ pattern, count }) => `"${pattern}" × ${count}`);
  return ` (the model has ${shown.join(", ")}${blocks.length > 4 ? ", …" : ""})`;
}

/** @returns the expression that a value stands for; undefined if something is wrong with it. */
function parseValue(value: LayerValue, pattern: string, report: Report): LayerExpression | undefined {
  const { subject, problems } = report;
  const parts = Array.isArray(value) ? (value as readonly (string | number)[]) : [value as string | number];
  const invalid = (message: string, details: Record<string, unknown> = {}): undefined => {
    problems.add("invalid-layers", `${subject}${layersOf(pattern)} ${message}`, { ...details, value });
  };
  if (parts.length === 0) return invalid('is an empty list. Use "all" or "none", or leave it out.');
  const wrong = parts.find((part) => typeof part !== "string" && !Number.isSafeInteger(part));
  if (wrong !== undefined)
    return invalid(`must be whole numbers and expressions, not ${JSON.stringify(wrong)}.`);
  const text = parts.join(",");
  const parsed = LayerExpression.parse(text);
  if (parsed instanceof LayerExpression) return parsed;
  for (const { term, at, message } of parsed)
    invalid(
      `${quote(text)}: ${term === "" ? "a term" : JSON.stringify(term)} at position ${at} ${message}.`,
      {
        term,
        position: at,
      },
    );
  return undefined;
}

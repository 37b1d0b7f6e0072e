import { leafOf } from "../python.ts";
import { type Shape, slot } from "./places.ts";
import { type Path, startsWithNumber } from "./tails.ts";

/** Entries of `targetModules` and the layers that they are limited to. */
export type ListForm = {
  readonly targets: readonly string[];
  readonly layers?: readonly number[];
  readonly pattern?: string;
  /** Whether the layers are all that these lists have, so that only the pattern says anything. */
  readonly areAllLayers?: boolean;
};

/** Modules outside all lists that may be named in full beside layers. */
const maxFullNames = 4;

/** Modules that may be named one by one beside tails that stand for many. */
const maxSingleNames = 6;

/** The fewest and shortest tails that end wanted names only; few of them hold numbers. */
export function plainList(shapes: readonly Shape[], others: readonly string[]): ListForm | undefined {
  const taken = allTails(shapes.filter(({ names, wantedCount }) => wantedCount < names.length));
  const targets: string[] = [];
  const single: string[] = [];
  for (const shape of shapes) {
    if (shape.wantedCount === 0) continue;
    const tail = plainTail(shape.parts, taken);
    if (tail !== undefined) targets.push(tail);
    else if (single.length + shape.wantedCount > maxSingleNames) return undefined;
    else single.push(...shape.names.filter((_, i) => shape.isWanted[i]));
  }
  const named = single.length === 0 ? [] : nameTails(single, others);
  return named && { targets: [...new Set([...targets, ...named])].sort() };
}

/** Tails limited to layers, without a pattern and with each that could find the index. */
export function layerLists(shapes: readonly Shape[]): ListForm[] {
  const forms: ListForm[] = [];
  for (const pattern of [undefined, ...layerPatterns(shapes)]) {
    const form = layerList(shapes, pattern);
    if (form !== undefined) forms.push(form);
  }
  return forms;
}

function layerList(shapes: readonly Shape[], pattern: Path | undefined): ListForm | undefined {
  const wanted: Shape[] = [];
  const others: Shape[] = [];
  const full: string[] = [];
  const layers = new Set<number>();
  const indexed = shapes.map((shape) => ({ shape, at: indexAt(shape.parts, pattern) }));
  for (const { shape, at } of indexed) {
    if (shape.wantedCount === 0) continue;
    if (at === undefined) full.push(...shape.names.filter((_, i) => shape.isWanted[i]));
    else
      for (let i = 0; i < shape.numbers.length; i++)
        if (shape.isWanted[i]) layers.add(indexOf(shape.numbers[i]!, at));
    if (full.length > maxFullNames) return undefined;
  }
  if (layers.size === 0) return undefined;
  let areAllLayers = true;
  for (const { shape, at } of indexed) {
    if (at === undefined) continue;
    let takes = false;
    let refuses = false;
    for (let i = 0; i < shape.numbers.length; i++)
      if (!layers.has(indexOf(shape.numbers[i]!, at))) {
        if (shape.wantedCount > 0) areAllLayers = false;
      } else if (shape.isWanted[i]) takes = true;
      else refuses = true;
    if (takes && refuses) return undefined;
    if (takes) wanted.push(shape);
    if (refuses) others.push(shape);
  }
  const taken = allTails(others);
  const tails = wanted.map(({ parts }) => plainTail(parts, taken));
  if (tails.includes(undefined)) return undefined;
  return {
    targets: [...new Set(tails as string[])].sort().concat(full),
    layers: [...layers].sort((a, b) => a - b),
    ...(pattern === undefined ? {} : { pattern: pattern.join(".") }),
    areAllLayers,
  };
}

/** Where a name's layer index is: in which of its numbers, or the number itself where it belongs to no list. */
type IndexAt = { readonly position: number } | { readonly index: number };

const indexOf = (numbers: readonly number[], at: IndexAt): number =>
  "index" in at ? at.index : numbers[at.position]!;

/** What PEFT's layer filter takes as the index in names of this shape. */
function indexAt(parts: Path, pattern: Path | undefined): IndexAt | undefined {
  let position = 0;
  for (let i = 0; i < parts.length - 1; i++) {
    const part = parts[i]!;
    const isNumber = part === slot || /^\p{Nd}+$/u.test(part);
    const isHere =
      isNumber &&
      (pattern === undefined
        ? i >= 2
        : i >= pattern.length && pattern.every((own, j) => parts[i - pattern.length + j] === own));
    if (isHere) return part === slot ? { position } : { index: Number(part) };
    if (part === slot) position++;
  }
  return undefined;
}

/** Ends of the paths of lists that hold wanted modules, short ones first. */
function layerPatterns(shapes: readonly Shape[]): Path[] {
  const patterns = new Map<string, Path>();
  for (const { parts, wantedCount } of shapes) {
    if (wantedCount === 0) continue;
    for (let i = 1; i < parts.length - 1; i++) {
      if (parts[i] !== slot) continue;
      for (let start = i - 1; start >= 0 && parts[start] !== slot; start--) {
        const pattern = parts.slice(start, i);
        patterns.set(pattern.join("."), pattern);
      }
    }
  }
  return [...patterns.values()].sort((a, b) => a.length - b.length);
}

function allTails(shapes: readonly Shape[]): Set<string> {
  const tails = new Set<string>();
  for (const { parts } of shapes)
    for (let start = parts.length - 1; start >= 0; start--) tails.add(parts.slice(start).join("."));
  return tails;
}

/** The shortest tail that is not taken; undefined if that takes a number. */
function plainTail(parts: Path, taken: ReadonlySet<string>): string | undefined {
  for (let start = parts.length - 1; start >= 0 && parts[start] !== slot; start--) {
    const tail = parts.slice(start);
    if (!startsWithNumber(tail) && !taken.has(tail.join("."))) return tail.join(".");
  }
  return undefined;
}

/**
 * For each name its shortest tail that ends none of the others and does not begin with a number; undefined if a name
 * is itself the tail of another one.
 */
export function nameTails(wanted: Iterable<string>, others: Iterable<string>): string[] | undefined {
  const names = [...wanted];
  const leaves = new Set(names.map(leafOf));
  const taken = new Set<string>();
  for (const name of others)
    if (leaves.has(leafOf(name))) for (const tail of tailsOfName(name)) taken.add(tail);
  const tails = new Set<string>();
  for (const name of names) {
    let best: string | undefined;
    for (const tail of tailsOfName(name)) {
      if (taken.has(tail)) continue;
      best = tail;
      if (!/^\d+(?:\.|$)/.test(tail)) break;
    }
    if (best === undefined) return undefined;
    tails.add(best);
  }
  return [...tails].sort();
}

/** Short ones first. */
function* tailsOfName(name: string): Generator<string> {
  for (let dot = name.lastIndexOf("."); dot !== -1; dot = dot === 0 ? -1 : name.lastIndexOf(".", dot - 1))
    yield name.slice(dot + 1);
  yield name;
}

import { boxesOf } from "./boxes.ts";
import { type Front, Head, type HeadText, renderHead, restsOf, type Term } from "./heads.ts";
import { isWhole, type Shape, slot } from "./places.ts";
import { alternatives, distancesOf, group, renderTails } from "./render.ts";
import { accepts, endsWith, type Path, type Tails, tailsOf } from "./tails.ts";

/** More heads than this make no regex that anybody reads. */
const maxHeads = 160;
/** Each head is compared with all names: what that may cost at most. */
const maxComparisons = 5_000_000;
/** Up to this many heads it is looked for needless ones. */
const maxComparedHeads = 24;
/** Beyond this many shapes that are taken whole, common fronts are not looked for. */
const maxWholeShapes = 150;

/** A regex in pieces: alternatives, of which those in `inner` may have other parts before them. */
export type Alternatives = { readonly inner: readonly string[]; readonly whole: readonly string[] };

/**
 * Alternatives that match exactly the wanted names of the shapes, factored: last numbers of a list, common containers
 * and shortest tails are said once. undefined where that would be too long to be of use.
 */
export function findAlternatives(given: readonly Shape[]): Alternatives | undefined {
  const shapes = spellLastNumbers(given);
  const heads = numberedHeads(shapes);
  if (heads === undefined) return undefined;
  const numbered = heads.map((front): Term => {
    const { others } = restsOf(front.head, shapes);
    return { fronts: [front], tails: tailsOf(front.rests, others) };
  });
  const { terms, left } = absorb(numbered, shapes);
  const open = left.length === 0 ? [] : bestTerms(left, 0, shapes).terms;
  return renderTerms(merge([...terms, ...open], shapes), shapes);
}

/** Lets a term take along what it matches anyhow: the names of other terms, and shapes that are taken whole. */
function absorb(given: readonly Term[], shapes: readonly Shape[]): { terms: Term[]; left: Shape[] } {
  const takes = (
    { fronts, tails }: Term,
    shape: Shape,
    isOwn: (numbers: readonly number[]) => boolean,
  ): boolean => {
    const { head } = fronts[0]!;
    if (!head.begins(shape) || !accepts(tails, shape.parts.slice(head.parts.length))) return false;
    return shape.numbers.every((numbers) => !isOwn(numbers) || head.holds(numbers));
  };
  const rest = (shape: Shape, { fronts }: Term): Path => shape.parts.slice(fronts[0]!.head.parts.length);
  const add = (term: Term, more: readonly Path[]): Term => {
    const { head, rests } = term.fronts[0]!;
    return { ...term, fronts: [{ head, rests: [...rests, ...more] }] };
  };
  let terms = [...given];
  if (given.length <= maxComparedHeads)
    for (const term of given) {
      const { head, rests } = terms.find(({ fronts }) => fronts[0]!.head === term.fronts[0]!.head)!
        .fronts[0]!;
      const own = shapes.filter(
        (shape) =>
          head.begins(shape) && rests.some((path) => isSame(path, shape.parts.slice(head.parts.length))),
      );
      const at = terms.findIndex(
        (other) =>
          other.fronts[0]!.head !== head &&
          own.every((shape) => takes(other, shape, (numbers) => head.holds(numbers))),
      );
      if (at === -1) continue;
      terms[at] = add(
        terms[at]!,
        own.map((shape) => rest(shape, terms[at]!)),
      );
      terms = terms.filter(({ fronts }) => fronts[0]!.head !== head);
    }
  const left: Shape[] = [];
  for (const shape of shapes) {
    if (!isWhole(shape)) continue;
    const at = terms.findIndex((term) => takes(term, shape, () => true));
    if (at === -1) left.push(shape);
    else terms[at] = add(terms[at]!, [rest(shape, terms[at]!)]);
  }
  return { terms, left };
}

const isSame = (a: Path, b: Path): boolean => a.length === b.length && endsWith(a, b);

/** One regex for the whole name. */
export function joinAlternatives({ inner, whole }: Alternatives): string {
  if (inner.length === 0) return whole.join("|");
  const front = commonFront(inner);
  const rest = inner.map((text) => text.slice(front.length));
  return [`.*\\.${front}${group(rest)}`, ...whole].join("|");
}

/** Parts that all alternatives begin with, such as `layers\.`. */
function commonFront(texts: readonly string[]): string {
  const first = texts[0]!;
  let length = 0;
  if (texts.length > 1)
    for (const { 0: part, index } of first.matchAll(/[\w-]+\\\./g)) {
      if (index !== length || !texts.every((text) => text.startsWith(part, length))) break;
      length += part.length;
    }
  return first.slice(0, length);
}

/** Heads that end at the last list of which only some items count, and what is wanted behind them. */
function numberedHeads(shapes: readonly Shape[]): Front[] | undefined {
  const fronts = new Map<string, { head: Head; rests: Path[] }>();
  const names = shapes.reduce((sum, shape) => sum + shape.names.length, 0);
  const limit = Math.min(maxHeads, Math.max(12, maxComparisons / names));
  for (const shape of shapes) {
    if (shape.wantedCount === 0 || isWhole(shape)) continue;
    for (const box of boxesOf(shape)) {
      const last = box.findLastIndex((numbers) => numbers !== null);
      let slots = 0;
      const end = shape.parts.findIndex((part) => part === slot && slots++ === last) + 1;
      const head = new Head(shape.parts.slice(0, end), box.slice(0, last + 1));
      const rest = shape.parts.slice(end);
      const key = `${head.parts.join(".")} ${head.signature}`;
      const known = fronts.get(key);
      if (known === undefined) fronts.set(key, { head, rests: [rest] });
      else known.rests.push(rest);
    }
    if (fronts.size > limit) return undefined;
  }
  return [...fronts.values()];
}

/** Where only some of the names that end with a number are wanted, such numbers become parts like others. */
function spellLastNumbers(shapes: readonly Shape[]): readonly Shape[] {
  const ends = ({ parts }: Shape): boolean => parts.at(-1) === slot;
  if (!shapes.some((shape) => ends(shape) && shape.wantedCount > 0 && !isWhole(shape))) return shapes;
  return shapes.flatMap((shape) => {
    if (!ends(shape)) return [shape];
    const byNumber = new Map<number, number[]>();
    shape.numbers.forEach((numbers, i) => {
      const last = numbers.at(-1)!;
      byNumber.set(last, [...(byNumber.get(last) ?? []), i]);
    });
    return [...byNumber].map(([number, places]): Shape => {
      const isWanted = places.map((i) => shape.isWanted[i]!);
      return {
        parts: [...shape.parts.slice(0, -1), String(number)],
        names: places.map((i) => shape.names[i]!),
        numbers: places.map((i) => shape.numbers[i]!.slice(0, -1)),
        isWanted,
        wantedCount: isWanted.filter(Boolean).length,
      };
    });
  });
}

type Plan = { readonly cost: number; readonly terms: readonly Term[] };

/**
 * Terms for shapes that are taken whole, all beginning with the same `depth` parts: one with this front, or apart by
 * the next part, whichever is shorter.
 */
function bestTerms(rows: readonly Shape[], depth: number, shapes: readonly Shape[]): Plan {
  const together = termAt(rows, depth, shapes);
  if (rows.length > maxWholeShapes) return together;
  const branches = new Map<string, Shape[]>();
  for (const row of rows) {
    if (row.parts.length === depth + 1 && rows.length === 1) return together;
    // a shape that ends here has no front of its own
    const key = row.parts.length === depth + 1 ? ` ${row.parts[depth]}` : row.parts[depth]!;
    branches.set(key, [...(branches.get(key) ?? []), row]);
  }
  let cost = branches.size - 1;
  const terms: Term[] = [];
  for (const [key, some] of branches) {
    const plan = key.startsWith(" ") ? termAt(some, depth, shapes) : bestTerms(some, depth + 1, shapes);
    cost += plan.cost;
    terms.push(...plan.terms);
    if (cost >= together.cost) return together;
  }
  return { cost, terms };
}

function termAt(rows: readonly Shape[], depth: number, shapes: readonly Shape[]): Plan {
  const parts = rows[0]!.parts.slice(0, depth);
  const head = new Head(
    parts,
    parts.filter((part) => part === slot).map(() => null),
  );
  const others: Path[] = [];
  for (const shape of shapes)
    if (!isWhole(shape) && head.begins(shape)) others.push(shape.parts.slice(depth));
  const rests = rows.map((row) => row.parts.slice(depth));
  const term: Term = { fronts: [{ head, rests }], tails: tailsOf(rests, others) };
  const { inner, whole } = renderTerms([term], shapes);
  return { cost: joinAlternatives({ inner, whole }).length, terms: [term] };
}

/** Heads that the same tails fit become one term; the tails that fit most heads go first. */
function merge(terms: readonly Term[], shapes: readonly Shape[]): Term[] {
  const pool = new Map<string, Tails>();
  for (const { tails } of terms) pool.set(JSON.stringify(tails), tails);
  const isRoot = ({ fronts }: Term): boolean => fronts[0]!.head.parts.length === 0;
  const merged = terms.filter(isRoot);
  let left = terms.filter((term) => !isRoot(term));
  const othersOf = new Map(left.map((term) => [term, restsOf(term.fronts[0]!.head, shapes).others]));
  const fits = (term: Term, tails: Tails): boolean => {
    if (term.tails === tails) return true;
    if (tails.kind === "paths" && tails.exact.length > 0) return false;
    return (
      term.fronts[0]!.rests.every((rest) => accepts(tails, rest)) &&
      !othersOf.get(term)!.some((rest) => accepts(tails, rest))
    );
  };
  while (left.length > 0) {
    let best: Term[] = [];
    let bestTails = left[0]!.tails;
    for (const tails of pool.values()) {
      const fitting = left.filter((term) => fits(term, tails));
      if (fitting.length > best.length) [best, bestTails] = [fitting, tails];
    }
    if (best.length === 0) best = [left[0]!];
    merged.push({ fronts: best.flatMap(({ fronts }) => fronts), tails: bestTails });
    left = left.filter((term) => !best.includes(term));
  }
  return merged;
}

function renderTerms(terms: readonly Term[], shapes: readonly Shape[]): Alternatives {
  const inner: string[] = [];
  const whole: string[] = [];
  for (const { fronts, tails } of terms) {
    const [first] = fronts;
    if (first!.head.parts.length === 0) {
      for (const text of renderTails(tails, first!.rests))
        if (text.startsWith(".*\\.")) inner.push(...ungroup(text.slice(4)));
        else whole.push(text);
      continue;
    }
    const groups = new Map<string, { texts: HeadText[]; rests: Path[] }>();
    for (const { head, rests } of fronts) {
      const alike = fronts.map((front) => front.head).filter(({ signature }) => signature === head.signature);
      const text = renderHead(head, tails, alike, shapes);
      const key = `${text.isInner} ${distancesOf(tails, rests)}`;
      const same = groups.get(key);
      if (same === undefined) groups.set(key, { texts: [text], rests: [...rests] });
      else {
        same.texts.push(text);
        same.rests.push(...rests);
      }
    }
    for (const { texts, rests } of groups.values()) {
      const front = group(alternatives(texts.map(({ parts }) => parts)));
      (texts[0]!.isInner ? inner : whole).push(`${front}\\.${group(renderTails(tails, rests))}`);
    }
  }
  return { inner: [...new Set(inner)], whole: [...new Set(whole)] };
}

/** The alternatives of a group without groups inside. */
const ungroup = (text: string): string[] => /^\(([^()]*)\)$/.exec(text)?.[1]?.split("|") ?? [text];

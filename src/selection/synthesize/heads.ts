import { regexEscape } from "../python.ts";
import type { Box } from "./boxes.ts";
import { numberPattern } from "./numbers.ts";
import { isWhole, type Shape, slot } from "./places.ts";
import { accepts, type Path, type Tails } from "./tails.ts";

/** The front of names: `model.layers.#`, and which numbers count at each `#`. */
export class Head {
  readonly parts: Path;
  readonly #allowed: readonly (ReadonlySet<number> | null)[];
  readonly box: Box;

  constructor(parts: Path, box: Box) {
    this.parts = parts;
    this.box = box;
    this.#allowed = box.map((numbers) => numbers && new Set(numbers));
  }

  get isNumbered(): boolean {
    return this.box.some((numbers) => numbers !== null);
  }

  /** Heads with the same numbers may be written as one. */
  get signature(): string {
    return JSON.stringify(this.box);
  }

  /** Does it begin names of this shape? */
  begins({ parts }: Shape): boolean {
    return parts.length > this.parts.length && this.parts.every((part, i) => parts[i] === part);
  }

  /** Numbers of a name, from the `offset`th on, are those of the last lists of this head. */
  holds(numbers: readonly number[], offset = 0, lists = this.box.length): boolean {
    const first = this.box.length - lists;
    for (let i = 0; i < lists; i++) {
      const allowed = this.#allowed[first + i];
      if (allowed !== null && !allowed!.has(numbers[offset + i]!)) return false;
    }
    return true;
  }
}

/** A head and what follows it in the wanted names. */
export type Front = { readonly head: Head; readonly rests: readonly Path[] };

/** Heads, and what may follow each of them. */
export type Term = { readonly fronts: readonly Front[]; readonly tails: Tails };

/** What follows a head: in wanted names only, and in others. */
export function restsOf(head: Head, shapes: readonly Shape[]): { wanted: Path[]; others: Path[] } {
  const wanted: Path[] = [];
  const others: Path[] = [];
  for (const shape of shapes) {
    if (!head.begins(shape)) continue;
    const rest = shape.parts.slice(head.parts.length);
    if (isWhole(shape)) wanted.push(rest);
    else if (shape.wantedCount === 0 && !head.isNumbered) others.push(rest);
    else {
      let takes = false;
      let refuses = false;
      for (let i = 0; i < shape.numbers.length && !refuses; i++) {
        if (!head.holds(shape.numbers[i]!)) continue;
        if (shape.isWanted[i]) takes = true;
        else refuses = true;
      }
      if (refuses) others.push(rest);
      else if (takes) wanted.push(rest);
    }
  }
  return { wanted, others };
}

/** A head as a regex. */
export type HeadText = {
  /** Whether other parts may stand before it; otherwise names begin with it. */
  readonly isInner: boolean;
  readonly parts: readonly string[];
};

/**
 * The shortest end of a head that, in front of these tails, still begins wanted names only: `layers\.[45]` of
 * `model.encoder.layers.#`. Numbers are never left to stand for those of another list, unless `alike` heads hold these.
 */
export function renderHead(
  head: Head,
  tails: Tails,
  alike: readonly Head[],
  shapes: readonly Shape[],
): HeadText {
  for (let length = 1; length < head.parts.length; length++) {
    const end = head.parts.slice(-length);
    if (end[0] !== slot && isEnough(head, end, tails, alike, shapes))
      return { isInner: true, parts: renderParts(head, length, shapes) };
  }
  return { isInner: false, parts: renderParts(head, head.parts.length, shapes) };
}

function isEnough(
  head: Head,
  end: Path,
  tails: Tails,
  alike: readonly Head[],
  shapes: readonly Shape[],
): boolean {
  const lists = countSlots(end);
  const isFree = head.box.slice(head.box.length - lists).every((numbers) => numbers === null);
  for (const shape of shapes) {
    if (isWhole(shape) && !head.isNumbered) continue;
    const { parts } = shape;
    for (let start = 1; start + end.length < parts.length; start++) {
      if (!end.every((part, i) => parts[start + i] === part)) continue;
      if (!accepts(tails, parts.slice(start + end.length))) continue;
      if (isFree && !isWhole(shape)) return false;
      const offset = countSlots(parts.slice(0, start));
      for (let i = 0; i < shape.numbers.length; i++) {
        const numbers = shape.numbers[i]!;
        if (!head.holds(numbers, offset, lists)) continue;
        if (!shape.isWanted[i]) return false;
        if (!alike.some((other) => other.begins(shape) && other.holds(numbers))) return false;
      }
    }
  }
  return true;
}

const countSlots = (parts: Path): number => parts.filter((part) => part === slot).length;

function renderParts(head: Head, length: number, shapes: readonly Shape[]): string[] {
  const first = head.parts.length - length;
  let list = countSlots(head.parts.slice(0, first));
  return head.parts.slice(first).map((part, i) => {
    if (part !== slot) return regexEscape(part);
    const numbers = head.box[list++]!;
    return numbers === null
      ? "\\d+"
      : numberPattern(numbers, numbersAt(head.parts.slice(0, first + i), shapes));
  });
}

/** All numbers that lists of this path have. */
function numbersAt(path: Path, shapes: readonly Shape[]): number[] {
  const position = countSlots(path);
  const numbers = new Set<number>();
  for (const shape of shapes)
    if (shape.parts[path.length] === slot && path.every((part, i) => shape.parts[i] === part))
      for (const own of shape.numbers) numbers.add(own[position]!);
  return [...numbers];
}

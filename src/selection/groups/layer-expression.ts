import { nearest } from "../../errors.ts";

/** What is wrong with a term. `at`: characters before it in the expression. */
export type TermProblem = { readonly term: string; readonly at: number; readonly message: string };

/** The layers that a term takes of a list; null if it names a layer that the list does not have. */
type Pick = (indices: readonly number[]) => readonly number[] | null;

type Term = { readonly text: string; readonly isNegative: boolean; readonly pick: Pick };

export type TakenLayers = {
  readonly layers: ReadonlySet<number>;
  /** Terms that name a layer which the list does not have. */
  readonly missing: readonly string[];
};

const words: Readonly<Record<string, Pick>> = {
  all: (indices) => indices,
  none: () => [],
  odd: (indices) => indices.filter((index) => index % 2 === 1),
  even: (indices) => indices.filter((index) => index % 2 === 0),
};
const counted = ["first", "last", "middle"] as const;

/** Enough to list each of a thousand layers. */
const maxLength = 10_000;

/**
 * Which layers of a list are meant, whatever its length: terms separated by commas.
 *
 * | term | layers |
 * |---|---|
 * | `3`, `-1` | one; negative ones count from the end |
 * | `4-7` | 4, 5, 6 and 7 |
 * | `-2:`, `:4`, `::2`, `1:-1` | Python's slices, which stop at the ends of the list |
 * | `first 4`, `last 4`, `middle 4` | so many, or all if there are fewer; a middle that cannot be centred starts earlier |
 * | `first 25%`, … | that part, rounded to whole layers, halves up |
 * | `odd`, `even`, `all`, `none` | by number |
 * | `!term` | not these; alone, all but these |
 *
 * The order of the terms does not matter: what any term takes, less what any `!` term takes.
 */
export class LayerExpression {
  readonly text: string;
  readonly #terms: readonly Term[];

  private constructor(text: string, terms: readonly Term[]) {
    this.text = text;
    this.#terms = terms;
  }

  /** @returns the expression, or what is wrong with its terms. */
  static parse(text: string): LayerExpression | readonly TermProblem[] {
    if (text.length > maxLength)
      return [{ term: `${text.slice(0, 20)}…`, at: 0, message: `is longer than ${maxLength} characters` }];
    const terms: Term[] = [];
    const problems: TermProblem[] = [];
    let at = 0;
    for (const part of text.split(",")) {
      const trimmed = part.trim();
      const isNegative = trimmed.startsWith("!");
      const pick = parseTerm(isNegative ? trimmed.slice(1).trim() : trimmed);
      if (typeof pick === "string")
        problems.push({ term: trimmed, at: at + part.length - part.trimStart().length, message: pick });
      else terms.push({ text: trimmed, isNegative, pick });
      at += part.length + 1;
    }
    return problems.length > 0 ? problems : new LayerExpression(text, terms);
  }

  /** @param indices numbers of the items of a list, ascending. */
  of(indices: readonly number[]): TakenLayers {
    const missing: string[] = [];
    const take = (isNegative: boolean): number[] =>
      this.#terms
        .filter((term) => term.isNegative === isNegative)
        .flatMap(({ text, pick }) => {
          const picked = pick(indices);
          if (picked === null) missing.push(text);
          return picked ?? [];
        });
    const layers = new Set(this.#terms.every(({ isNegative }) => isNegative) ? indices : take(false));
    for (const index of take(true)) layers.delete(index);
    return { layers, missing };
  }
}

/** @returns what the term takes, or what is wrong with it. */
function parseTerm(term: string): Pick | string {
  if (term === "") return "is empty";
  const lower = term.toLowerCase();
  if (Object.hasOwn(words, lower)) return words[lower]!;
  const single = /^-?\d+$/.exec(term);
  if (single) return oneLayer(Number(term));
  const range = /^(-?\d+)\s*-\s*(-?\d+)$/.exec(term);
  if (range) return layerRange(Number(range[1]), Number(range[2]));
  const slice = /^(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(-?\d+)?)?$/.exec(term);
  if (slice) {
    const [start, stop, step] = slice.slice(1).map((n) => (n === undefined ? undefined : Number(n)));
    if (step === 0) return "has a step of 0; leave the step out, or use 1";
    return (indices) => sliceOf(indices, start, stop, step ?? 1);
  }
  const share = /^(first|last|middle)\s+(\d+(?:\.\d+)?)\s*(%)?$/.exec(lower);
  if (share) return layerShare(share[1] as (typeof counted)[number], Number(share[2]), share[3] === "%");
  return notATerm(lower);
}

function notATerm(term: string): string {
  const word = /^[a-z]+/.exec(term)?.[0];
  if (word !== undefined && (counted as readonly string[]).includes(word))
    return `needs a number of layers or a percentage, as in "${word} 4" or "${word} 25%"`;
  const close = word === undefined ? undefined : nearest(word, [...Object.keys(words), ...counted], 1)[0];
  return close === undefined
    ? 'is none of: a number, "4-7", "-2:", "last 4", "first 25%", "odd", "even", "all", "none"'
    : `is not known; closest: "${close}"`;
}

/** A negative number counts from the end: -1 is the last item, whatever its number. */
function itemOf(indices: readonly number[], index: number): number | undefined {
  return index < 0 ? indices[indices.length + index] : indices.find((item) => item === index);
}

const oneLayer =
  (index: number): Pick =>
  (indices) => {
    const item = itemOf(indices, index);
    return item === undefined ? null : [item];
  };

function layerRange(from: number, to: number): Pick | string {
  if (from >= 0 === to >= 0 && from > to) return `runs backwards; write ${to}-${from}`;
  return (indices) => {
    const first = itemOf(indices, from);
    const last = itemOf(indices, to);
    if (first === undefined || last === undefined) return null;
    return indices.filter((index) => index >= first && index <= last);
  };
}

/** Python's `indices[start:stop:step]`. */
function sliceOf(
  indices: readonly number[],
  start: number | undefined,
  stop: number | undefined,
  step: number,
): number[] {
  const { length } = indices;
  const [low, high] = step > 0 ? [0, length] : [-1, length - 1];
  const clip = (given: number | undefined, fallback: number): number =>
    given === undefined ? fallback : Math.min(Math.max(given < 0 ? given + length : given, low), high);
  const taken: number[] = [];
  const end = clip(stop, step > 0 ? high : low);
  for (let i = clip(start, step > 0 ? low : high); step > 0 ? i < end : i > end; i += step)
    taken.push(indices[i]!);
  return taken;
}

function layerShare(which: (typeof counted)[number], amount: number, isPercent: boolean): Pick | string {
  if (isPercent && amount > 100) return "is more than 100 %";
  if (!isPercent && !Number.isInteger(amount)) return "must be a whole number of layers, or a percentage";
  return (indices) => {
    const { length } = indices;
    // halves up; 33.3 % of 6 is 1.998
    const count = Math.min(isPercent ? Math.round((length * amount) / 100) : amount, length);
    const start = { first: 0, last: length - count, middle: Math.floor((length - count) / 2) }[which];
    return indices.slice(start, start + count);
  };
}

import { type Category, Flag, itemKey, type SetItem } from "./ast.ts";
import {
  extraCases,
  isAsciiDigit,
  isAsciiSpace,
  isAsciiWord,
  isCased,
  isDigit,
  isSpace,
  isWord,
  toAsciiLower,
  toLower,
  toUpper,
} from "./unicode.ts";

/**
 * A set of code points: a test, and its verdicts for ASCII in advance.
 * `key` is the same for sets made from the same members under the same flags.
 */
export class CharSet {
  readonly key: string;
  readonly #test: (code: number) => boolean;
  readonly #ascii = new Uint8Array(128);

  constructor(key: string, test: (code: number) => boolean) {
    this.key = key;
    this.#test = test;
    for (let code = 0; code < 128; code++) this.#ascii[code] = test(code) ? 1 : 0;
  }

  has(code: number): boolean {
    return code < 128 ? this.#ascii[code] === 1 : this.#test(code);
  }
}

const NEWLINE = 10;
const MAX_BMP = 0xffff;

/** `.`: anything but a newline, with the flag s anything. */
export const anySet = (flags: number): CharSet =>
  flags & Flag.DOTALL
    ? new CharSet("any", () => true)
    : new CharSet("not newline", (code) => code !== NEWLINE);

/** One character, or with `negate` any other; the flag i also takes its other cases. */
export function literalSet(literal: number, negate: boolean, flags: number): CharSet {
  const variants = literalTest(literal, flags);
  return new CharSet(
    `${negate ? "not " : ""}literal ${literal} ${caseMode(flags)}`,
    negate ? (code) => !variants(code) : variants,
  );
}

function literalTest(literal: number, flags: number): (code: number) => boolean {
  switch (caseMode(flags)) {
    case "exact":
      return (code) => code === literal;
    case "ascii": {
      const lower = toAsciiLower(literal);
      return (code) => toAsciiLower(code) === lower;
    }
    case "unicode": {
      if (!isCased(literal)) return (code) => code === literal;
      const lower = toLower(literal);
      const variants = [lower, ...extraCases(lower)];
      return (code) => variants.includes(toLower(code));
    }
  }
}

/** How case counts under some flags. */
export type CaseMode = "exact" | "ascii" | "unicode";

export const caseMode = (flags: number): CaseMode =>
  flags & Flag.IGNORECASE ? (flags & Flag.UNICODE ? "unicode" : "ascii") : "exact";

/** Lower case for comparing characters in a mode. */
export const fold = (code: number, mode: CaseMode): number =>
  mode === "exact" ? code : mode === "ascii" ? toAsciiLower(code) : toLower(code);

/**
 * `[...]`. With the flag i, members are compared in lower case, and so is the character if any member has a case:
 * what CPython's `_optimize_charset` and IN_UNI_IGNORE do, including that an upper-case letter beyond U+FFFF in a set
 * matches nothing (ranges of such letters work).
 */
export function memberSet(items: readonly SetItem[], negate: boolean, flags: number): CharSet {
  const mode = caseMode(flags);
  const folds = mode !== "exact" && items.some((item) => hasCase(item, mode));
  const tests = items.map((item) => itemTest(item, flags));
  const key = `${negate ? "not " : ""}[${items.map(itemKey)}] ${mode} ${flags & Flag.UNICODE}`;
  return new CharSet(key, (code) => {
    const folded = folds ? fold(code, mode) : code;
    return tests.some((test) => test(folded)) !== negate;
  });
}

/** Whether a member makes CPython compare the set in lower case. */
function hasCase(item: SetItem, mode: CaseMode): boolean {
  const cased = mode === "ascii" ? isAsciiCased : isCased;
  switch (item.op) {
    case "category":
      return false;
    case "literal":
      return item.code > MAX_BMP || cased(item.code);
    case "range":
      if (item.high > MAX_BMP) return true;
      for (let code = item.low; code <= item.high; code++) if (cased(code)) return true;
      return false;
  }
}

const isAsciiCased = (code: number): boolean => (code >= 65 && code <= 90) || (code >= 97 && code <= 122);

/** Test of an already folded character against one member. */
function itemTest(item: SetItem, flags: number): (code: number) => boolean {
  if (item.op === "category") {
    const test = categoryTest(item.category, flags);
    return item.negate ? (code) => !test(code) : test;
  }
  const [low, high] = item.op === "literal" ? [item.code, item.code] : [item.low, item.high];
  const inRange = (code: number) => code >= low && code <= high;
  const mode = caseMode(flags);
  if (mode === "exact") return inRange;
  if (item.op === "literal" && low > MAX_BMP) return inRange;
  // Lower-case forms of the members up to U+FFFF, with the extra cases; members beyond are compared both ways.
  const folded = new Set<number>();
  for (let code = low; code <= Math.min(high, MAX_BMP); code++) {
    const lower = fold(code, mode);
    folded.add(lower);
    if (mode === "unicode") for (const other of extraCases(lower)) folded.add(other);
  }
  if (high <= MAX_BMP) return (code) => folded.has(code);
  return (code) => folded.has(code) || inRange(code) || inRange(toUpper(code));
}

function categoryTest(category: Category, flags: number): (code: number) => boolean {
  const unicode = (flags & Flag.UNICODE) !== 0;
  switch (category) {
    case "digit":
      return unicode ? isDigit : isAsciiDigit;
    case "space":
      return unicode ? isSpace : isAsciiSpace;
    case "word":
      return unicode ? isWord : isAsciiWord;
  }
}

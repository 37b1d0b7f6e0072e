import type { Position } from "./lower.ts";
import { isAsciiWord, isWord } from "./unicode.ts";

/** What a condition on a position needs to know of a neighbouring character; 0 stands for no character. */
export const Trait = { EXISTS: 1, NEWLINE: 2, WORD: 4, ASCII_WORD: 8, LAST: 16 } as const;

/** Traits of a character, without LAST, which depends on where it stands. */
export function traitsOf(code: number): number {
  let traits: number = Trait.EXISTS;
  if (code === 10) traits |= Trait.NEWLINE;
  if (isWord(code)) traits |= Trait.WORD;
  if (isAsciiWord(code)) traits |= Trait.ASCII_WORD;
  return traits;
}

/** Traits of the character before and after that decide a condition; engines tell only these apart. */
export const relevantTraits: {
  readonly [P in Position]: { readonly before: number; readonly after: number };
} = {
  start: { before: Trait.EXISTS, after: 0 },
  "line-start": { before: Trait.EXISTS | Trait.NEWLINE, after: 0 },
  end: { before: 0, after: Trait.EXISTS },
  "line-end": { before: 0, after: Trait.EXISTS | Trait.NEWLINE },
  "before-final-newline": { before: 0, after: Trait.EXISTS | Trait.NEWLINE | Trait.LAST },
  boundary: { before: Trait.EXISTS | Trait.WORD, after: Trait.EXISTS | Trait.WORD },
  "not-boundary": { before: Trait.EXISTS | Trait.WORD, after: Trait.EXISTS | Trait.WORD },
  "ascii-boundary": { before: Trait.EXISTS | Trait.ASCII_WORD, after: Trait.EXISTS | Trait.ASCII_WORD },
  "not-ascii-boundary": { before: Trait.EXISTS | Trait.ASCII_WORD, after: Trait.EXISTS | Trait.ASCII_WORD },
};

/** Whether a condition holds between two characters given by their traits. */
export function holds(position: Position, before: number, after: number): boolean {
  switch (position) {
    case "start":
      return before === 0;
    case "line-start":
      return before === 0 || (before & Trait.NEWLINE) !== 0;
    case "end":
      return after === 0;
    case "line-end":
      return after === 0 || (after & Trait.NEWLINE) !== 0;
    case "before-final-newline":
      return after === 0 || ((after & Trait.NEWLINE) !== 0 && (after & Trait.LAST) !== 0);
    case "boundary":
      return differ(before, after, Trait.WORD) === true;
    case "not-boundary":
      return differ(before, after, Trait.WORD) === false;
    case "ascii-boundary":
      return differ(before, after, Trait.ASCII_WORD) === true;
    case "not-ascii-boundary":
      return differ(before, after, Trait.ASCII_WORD) === false;
  }
}

/** In an empty text neither `\b` nor `\B` matches (CPython before 3.14): undefined. */
const differ = (before: number, after: number, trait: number): boolean | undefined =>
  before === 0 && after === 0 ? undefined : (before & trait) !== (after & trait);

/** Traits of the characters around index `at` of a text. */
export const traitsBefore = (codes: ArrayLike<number>, at: number): number =>
  at === 0 ? 0 : traitsOf(codes[at - 1]!);

export const traitsAfter = (codes: ArrayLike<number>, at: number): number =>
  at === codes.length ? 0 : traitsOf(codes[at]!) | (at === codes.length - 1 ? Trait.LAST : 0);

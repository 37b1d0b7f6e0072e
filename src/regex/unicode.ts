/**
 * Characters as CPython 3.11 sees them: classes, simple case mappings, names.
 * Everything comes from generated tables, so that results don't depend on the Unicode version of the browser.
 */

import { NAME_ALIASES, NAME_BLOCKS, NAME_WORDS } from "./unicode-names.ts";
import {
  DIGIT,
  EXTRA_CASES,
  IDENTIFIER_PART,
  IDENTIFIER_START,
  LOWER,
  SPACE,
  UPPER,
  WORD,
} from "./unicode-tables.ts";

const fromBase36 = (text: string): number => Number.parseInt(text, 36);

/** Membership test over sorted range boundaries; the table is decoded on first use. */
function rangeTest(encoded: string): (code: number) => boolean {
  let boundaries: Int32Array | undefined;
  return (code) => {
    boundaries ??= decodeBoundaries(encoded);
    return (rangeIndex(boundaries, code) & 1) === 1;
  };
}

function decodeBoundaries(encoded: string): Int32Array {
  let last = 0;
  return Int32Array.from(encoded.split(" "), (delta) => {
    last += fromBase36(delta);
    return last;
  });
}

/** How many boundaries are at or below `code`; odd means inside a range. */
function rangeIndex(boundaries: Int32Array, code: number): number {
  let low = 0;
  let high = boundaries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (boundaries[middle]! <= code) low = middle + 1;
    else high = middle;
  }
  return low;
}

const isWordTable = rangeTest(WORD);

/** `\w` of a Unicode pattern: `str.isalnum()` or the underscore. */
export const isWord = (code: number): boolean => (code < 128 ? isAsciiWord(code) : isWordTable(code));

/** `\d` of a Unicode pattern: `str.isdecimal()`. */
export const isDigit = rangeTest(DIGIT);

/** `\s` of a Unicode pattern: `str.isspace()`. */
export const isSpace = rangeTest(SPACE);

export const isAsciiDigit = (code: number): boolean => code >= 48 && code <= 57;

export const isAsciiSpace = (code: number): boolean => code === 32 || (code >= 9 && code <= 13);

export const isAsciiLetter = (code: number): boolean =>
  (code >= 97 && code <= 122) || (code >= 65 && code <= 90);

export const isAsciiWord = (code: number): boolean =>
  isAsciiLetter(code) || isAsciiDigit(code) || code === 95;

const digitBoundaries = decodeBoundaries(DIGIT);

/** Value of a decimal digit of any script, -1 for other characters. Every range of digits begins at a zero. */
export function digitValue(code: number): number {
  const index = rangeIndex(digitBoundaries, code);
  return index & 1 ? (code - digitBoundaries[index - 1]!) % 10 : -1;
}

const isIdentifierStart = rangeTest(IDENTIFIER_START);
const isIdentifierPart = rangeTest(IDENTIFIER_PART);

/** Python's `str.isidentifier()`, for group names. */
export function isIdentifier(name: string): boolean {
  if (name === "") return false;
  let first = true;
  for (const character of name) {
    const code = character.codePointAt(0)!;
    if (!(first ? isIdentifierStart(code) : isIdentifierPart(code))) return false;
    first = false;
  }
  return true;
}

/** Simple case mapping from `start,length,step,delta` runs; the table is decoded on first use. */
function caseMapping(encoded: string): (code: number) => number {
  let mapping: Map<number, number> | undefined;
  return (code) => {
    mapping ??= decodeMapping(encoded);
    return mapping.get(code) ?? code;
  };
}

function decodeMapping(encoded: string): Map<number, number> {
  const mapping = new Map<number, number>();
  let start = 0;
  for (const run of encoded.split(" ")) {
    const [distance, length, step, delta] = run.split(",").map(fromBase36) as [
      number,
      number,
      number,
      number,
    ];
    start += distance;
    for (let i = 0; i < length; i++) mapping.set(start + i * step, start + i * step + delta);
  }
  return mapping;
}

/** Simple lower case, one character to one (`_sre.unicode_tolower`). */
export const toLower = caseMapping(LOWER);

/** Simple upper case, one character to one. */
export const toUpper = caseMapping(UPPER);

export const isCased = (code: number): boolean => toLower(code) !== code || toUpper(code) !== code;

export const toAsciiLower = (code: number): number => (code >= 65 && code <= 90 ? code + 32 : code);

let extraCaseTable: Map<number, number[]> | undefined;

/**
 * Other lower-case letters with the same upper case as the lower-case letter `code`, e.g. long s for s.
 * Source: CPython re/_casefix.py.
 */
export function extraCases(code: number): readonly number[] {
  extraCaseTable ??= new Map(
    EXTRA_CASES.split(" ").map((entry) => {
      const [key, others] = entry.split(":") as [string, string];
      return [fromBase36(key), others.split(",").map(fromBase36)];
    }),
  );
  return extraCaseTable.get(code) ?? [];
}

let nameTable: Map<string, number> | undefined;

/** Blocks of unified ideographs in Unicode 14, whose names spell their code points. */
const IDEOGRAPHS: readonly (readonly [number, number])[] = [
  [0x3400, 0x4dbf],
  [0x4e00, 0x9fff],
  [0x20000, 0x2a6df],
  [0x2a700, 0x2b738],
  [0x2b740, 0x2b81d],
  [0x2b820, 0x2cea1],
  [0x2ceb0, 0x2ebe0],
  [0x30000, 0x3134a],
];

/**
 * Code point of a character by its Unicode name, for `\N{...}`; undefined if the name is not known.
 * Knows Latin, Greek, Cyrillic, kana, ideographs, punctuation, currency, arrows, mathematical operators, common
 * symbols, emoticons and controls. The full list of names would weigh more than the rest of the package.
 */
export function characterByName(name: string): number | undefined {
  const ideograph = /^CJK UNIFIED IDEOGRAPH-([0-9A-F]{4,6})$/.exec(name);
  if (ideograph) {
    const code = Number.parseInt(ideograph[1]!, 16);
    return IDEOGRAPHS.some(([first, last]) => code >= first && code <= last) ? code : undefined;
  }
  nameTable ??= decodeNames();
  return nameTable.get(name.replace(/[a-z]/g, (letter) => letter.toUpperCase()));
}

const NAME_TOKENS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
/** Words with an index below this are written as one token, the others as two. */
const ONE_TOKEN = 40;

function decodeNames(): Map<string, number> {
  const words = NAME_WORDS.split(" ");
  const table = new Map<string, number>();
  for (const [start, names] of NAME_BLOCKS) {
    let code = fromBase36(start);
    for (const encoded of names.split(",")) {
      if (encoded !== "") table.set(decodeName(encoded, words), code);
      code++;
    }
  }
  for (const entry of NAME_ALIASES.split("|")) {
    const [name, code] = entry.split(":") as [string, string];
    table.set(name, fromBase36(code));
  }
  return table;
}

function decodeName(encoded: string, words: readonly string[]): string {
  const name: string[] = [];
  for (let i = 0; i < encoded.length; i++) {
    const token = NAME_TOKENS.indexOf(encoded[i]!);
    name.push(
      words[
        token < ONE_TOKEN ? token : ONE_TOKEN + (token - ONE_TOKEN) * 64 + NAME_TOKENS.indexOf(encoded[++i]!)
      ]!,
    );
  }
  return name.join(" ");
}

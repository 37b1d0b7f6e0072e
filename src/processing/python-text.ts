import { compile, type Match } from "../regex/index.ts";

// Characters of Python's str.isspace, which differ from JavaScript's \s in U+001C–U+001F, U+0085 and U+FEFF.
const space = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const ends = new RegExp(`^${space}+|${space}+$`, "g");

/** Text without white space at its ends, as Python's `str.strip()`. */
export const strip = (text: string): string => text.replace(ends, "");

/** Text without what is not ASCII, as Python's `text.encode("ascii", "ignore").decode("ascii")`. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII includes them
export const asciiOnly = (text: string): string => text.replace(/[^\x00-\x7f]/g, "");

/**
 * The matches of a Python pattern that do not overlap, as `re.finditer`. The pattern must not look behind where it
 * matches (`^`, `\b`, lookbehind), because each search starts on the rest of the text.
 */
export function* findAll(pattern: string, text: string): Generator<Match> {
  const compiled = compile(pattern);
  for (let from = 0; from <= text.length; ) {
    const match = compiled.search(text.slice(from));
    if (match === null) return;
    yield match;
    from += match.end > match.start ? match.end : match.end + 1;
  }
}

/** Whether a Python pattern asks what stands before the place where it matches. */
export const looksBehind = (pattern: string): boolean =>
  /\(\?<[=!]|\\[AbB]|\^/.test(pattern.replace(/\\[^AbB]/g, "").replace(/\[\^?\]?[^\]]*\]/g, ""));

/** A decimal integer in any script's digits, as Python's `int(text)` reads what `\d+` matches. */
export function parseInteger(digits: string): bigint {
  let ascii = "";
  for (const digit of digits) {
    let zero = digit.codePointAt(0)!;
    // Unicode keeps the ten digits of a script together, and starts each such row at a zero.
    while (/\p{Nd}/u.test(String.fromCodePoint(zero - 1))) zero--;
    ascii += (digit.codePointAt(0)! - zero) % 10;
  }
  return BigInt(ascii);
}

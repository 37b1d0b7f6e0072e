import type { Anchor, Ast, Category, SetItem } from "./ast.ts";
import type { ParserState } from "./parser-state.ts";
import { codePointLength } from "./tokenizer.ts";
import { characterByName, isAsciiLetter } from "./unicode.ts";

/** Escapes that stand for one character. */
const CHARACTERS: Readonly<Record<string, number>> = {
  "\\a": 7,
  "\\b": 8,
  "\\f": 12,
  "\\n": 10,
  "\\r": 13,
  "\\t": 9,
  "\\v": 11,
  "\\\\": 92,
};

const CATEGORIES: Readonly<Record<string, { category: Category; negate: boolean }>> = {
  "\\d": { category: "digit", negate: false },
  "\\D": { category: "digit", negate: true },
  "\\s": { category: "space", negate: false },
  "\\S": { category: "space", negate: true },
  "\\w": { category: "word", negate: false },
  "\\W": { category: "word", negate: true },
};

const ANCHORS: Readonly<Record<string, Anchor>> = {
  "\\A": "string-start",
  "\\Z": "string-end",
  "\\b": "boundary",
  "\\B": "not-boundary",
};

export const isDecimalDigit = (token: string | null): token is string =>
  token !== null && /^[0-9]$/.test(token);
const isOctalDigit = (token: string | null): token is string => token !== null && /^[0-7]$/.test(token);
const isHexDigit = (token: string): boolean => /^[0-9a-fA-F]$/.test(token);

const MAX_OCTAL = 0o377;
const MAX_CODE_POINT = 0x10ffff;
const HEX_LENGTHS: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

/** Meaning of a backslash pair outside a set; `pair` was just consumed. Mirrors `_escape`. */
export function parseEscape(state: ParserState, pair: string): Ast {
  const { source } = state;
  const anchor = ANCHORS[pair];
  if (anchor !== undefined) return { op: "at", anchor };
  const category = CATEGORIES[pair];
  if (category) return { op: "in", items: [{ op: "category", ...category }], negate: false };
  const literal = (code: number): Ast => ({ op: "literal", code, negate: false });
  const character = CHARACTERS[pair] ?? codedCharacter(state, pair);
  if (character !== undefined) return literal(character);

  const kind = pair[1]!;
  if (kind === "0") return literal(Number.parseInt((pair + source.getWhile(2, isOctalDigit)).slice(1), 8));
  if (isDecimalDigit(kind)) {
    // An octal escape if it has three octal digits, otherwise a reference to a group.
    let digits = kind;
    if (isDecimalDigit(source.next)) {
      digits += source.get();
      if (isOctalDigit(digits[0]!) && isOctalDigit(digits[1]!) && isOctalDigit(source.next)) {
        digits += source.get();
        return literal(octalValue(state, digits));
      }
    }
    const group = Number(digits);
    if (group >= state.groups)
      throw source.error(`reference to group ${group}, which does not exist`, digits.length);
    if (!state.isClosed(group)) throw state.openGroupError(digits.length + 1);
    state.checkLookbehindReference(group);
    return { op: "backreference", group };
  }
  return literal(plainEscape(state, pair));
}

/** Meaning of a backslash pair inside a set. Mirrors `_class_escape`. */
export function parseSetEscape(state: ParserState, pair: string): SetItem {
  const { source } = state;
  const literal = (code: number): SetItem => ({ op: "literal", code });
  const category = CATEGORIES[pair];
  if (category) return { op: "category", ...category };
  const character = CHARACTERS[pair] ?? codedCharacter(state, pair);
  if (character !== undefined) return literal(character);

  const kind = pair[1]!;
  if (isOctalDigit(kind)) return literal(octalValue(state, kind + source.getWhile(2, isOctalDigit)));
  if (isDecimalDigit(kind)) throw source.error(`${pair} is not an escape`, 2);
  return literal(plainEscape(state, pair));
}

/** `\xhh`, `\uhhhh`, `\Uhhhhhhhh` and `\N{name}`; undefined for other escapes. */
function codedCharacter(state: ParserState, pair: string): number | undefined {
  const { source } = state;
  const kind = pair[1]!;
  if (kind === "N") {
    if (!source.match("{")) throw source.error("missing { after \\N");
    const name = source.getUntil("}", "character name");
    const code = characterByName(name);
    if (code === undefined)
      throw source.error(
        `unknown character name "${name}"; write the character itself or its \\u escape`,
        codePointLength(name) + "\\N{}".length,
      );
    return code;
  }
  const length = HEX_LENGTHS[kind];
  if (length === undefined) return undefined;
  const digits = source.getWhile(length, isHexDigit);
  if (digits.length !== length)
    throw source.error(`\\${kind} needs ${length} hexadecimal digits`, digits.length + 2);
  const code = Number.parseInt(digits, 16);
  if (code > MAX_CODE_POINT) throw source.error(`\\${kind}${digits} is not a character`, digits.length + 2);
  return code;
}

function octalValue(state: ParserState, digits: string): number {
  const code = Number.parseInt(digits, 8);
  if (code > MAX_OCTAL)
    throw state.source.error(`octal escape \\${digits} is above \\377`, digits.length + 1);
  return code;
}

/** A backslash before a character that needs none; letters are reserved. */
function plainEscape(state: ParserState, pair: string): number {
  const code = pair.codePointAt(1)!;
  if (isAsciiLetter(code)) throw state.source.error(`${pair} is not an escape`, 2);
  return code;
}

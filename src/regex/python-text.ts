/** What Python's own functions make of texts, as far as the parser needs it. */

import { digitValue, isAsciiSpace, isSpace } from "./unicode.ts";

/** Python refuses to convert longer texts to integers. */
export const MAX_INTEGER_DIGITS = 4300;

/** Python's `int(text)`: blanks around, a sign, single underscores between digits, digits of any script. */
export function parseInteger(text: string): number | undefined {
  const characters = Array.from(text);
  // int() strips U+001C to U+001F nowhere, though str.isspace() holds for them.
  const blank = (character: string | undefined) => {
    const code = character?.codePointAt(0) ?? 0;
    return code < 128 ? isAsciiSpace(code) : isSpace(code);
  };
  while (blank(characters[0])) characters.shift();
  while (blank(characters.at(-1))) characters.pop();
  const sign = characters[0] === "-" ? -1 : 1;
  if (characters[0] === "-" || characters[0] === "+") characters.shift();
  let value = 0;
  let digits = 0;
  let afterDigit = false;
  for (const character of characters) {
    if (character === "_" && afterDigit) {
      afterDigit = false;
      continue;
    }
    const digit = digitValue(character.codePointAt(0)!);
    if (digit < 0) return undefined;
    value = value * 10 + digit;
    digits++;
    afterDigit = true;
  }
  return afterDigit && digits <= MAX_INTEGER_DIGITS ? sign * value : undefined;
}

/** Text as Python's `repr` quotes it, for texts without control characters. */
export const pythonQuote = (text: string): string =>
  text.includes("'") && !text.includes('"')
    ? `"${text.replaceAll("\\", "\\\\")}"`
    : `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

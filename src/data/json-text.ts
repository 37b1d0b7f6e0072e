import { dataError, type Place } from "./problem.ts";

/**
 * Parse JSON; a failure names line and column, which V8's own message often leaves out.
 * @throws DataError "bad-json"
 */
export function parseJson(text: string, place: Place, remedy: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const { offset, expected } = findJsonError(text);
    const before = text.slice(0, offset);
    const newlines = before.split("\n").length - 1;
    const column = [...before.slice(before.lastIndexOf("\n") + 1)].length + 1;
    const found =
      offset < text.length ? JSON.stringify(String.fromCodePoint(text.codePointAt(offset)!)) : "the end";
    throw dataError(
      "bad-json",
      { ...place, line: (place.line ?? 1) + newlines, column },
      `not valid JSON: expected ${expected}, found ${found}. ${remedy}`,
      {},
      cause,
    );
  }
}

const literal = /true|false|null/y;
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// A string up to the first character that may not follow in it.
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids exactly these in strings
const stringBody = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*/y;
const space = /[ \t\r\n]*/y;

/** Where text stops being JSON, and what would have to stand there. Nesting is kept in an array, so any depth is fine. */
export function findJsonError(text: string): { offset: number; expected: string } {
  let at = 0;
  const take = (pattern: RegExp): boolean => {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return false;
    at = pattern.lastIndex;
    return true;
  };
  const open: ("{" | "[")[] = [];
  // What comes next: a value, a value or "]", a key, a key or "}", or what follows a value.
  let state: "value" | "first-item" | "key" | "first-key" | "after" = "value";
  for (;;) {
    take(space);
    const char = text[at];
    if (state === "after") {
      const container = open.at(-1);
      if (container === undefined) {
        if (at < text.length) return { offset: at, expected: "nothing more" };
        return { offset: at, expected: "other text" }; // valid; callers come here only after a failure
      }
      if (char === ",") {
        at++;
        state = container === "{" ? "key" : "value";
      } else if (char === (container === "{" ? "}" : "]")) {
        at++;
        open.pop();
      } else return { offset: at, expected: container === "{" ? 'a comma or "}"' : 'a comma or "]"' };
      continue;
    }
    if (state === "key" || state === "first-key") {
      if (state === "first-key" && char === "}") {
        at++;
        open.pop();
        state = "after";
        continue;
      }
      if (char !== '"')
        return {
          offset: at,
          expected: state === "key" ? "a key in double quotes" : 'a key in double quotes or "}"',
        };
      take(stringBody);
      if (text[at] !== '"') return { offset: at, expected: stringProblem(text, at) };
      at++;
      take(space);
      if (text[at] !== ":") return { offset: at, expected: "a colon" };
      at++;
      state = "value";
      continue;
    }
    if (state === "first-item" && char === "]") {
      at++;
      open.pop();
      state = "after";
    } else if (char === "{" || char === "[") {
      at++;
      open.push(char);
      state = char === "{" ? "first-key" : "first-item";
    } else if (char === '"') {
      take(stringBody);
      if (text[at] !== '"') return { offset: at, expected: stringProblem(text, at) };
      at++;
      state = "after";
    } else if (take(literal) || take(number)) state = "after";
    else return { offset: at, expected: "a value" };
  }
}

const stringProblem = (text: string, at: number): string =>
  at >= text.length
    ? "a closing double quote"
    : text[at] === "\\"
      ? "a valid escape sequence (\\\\ for a backslash)"
      : "an escaped character (\\n for a line break, \\t for a tab)";

import { RegexError } from "../../errors.ts";
import { compile } from "../../regex/index.ts";
import { compileTail, globRegex } from "./glob.ts";

export type EntryKind = "name" | "glob" | "regex" | "all-linear";

/**
 * One entry of `targetModules` or `excludeModules`.
 *
 * | kind | told by | takes modules |
 * |---|---|---|
 * | regex | one of `\ ( ) | ^ $ +`, or `.*` that is not a whole part of a name | whose whole name it matches (Python's `re.fullmatch`) |
 * | glob | otherwise, one of `* ? [ ] { }` | whose name, or the end of it after a dot, it matches |
 * | all-linear | the word | that are linear layers, without the output head: PEFT's rule |
 * | name | everything else | of that name, or whose name ends in a dot and that name: PEFT's rule |
 *
 * `regex:`, `glob:` and `name:` in front decide where this would not. `!` before all of it takes modules away.
 */
export type Entry = {
  /** As given. */
  readonly text: string;
  readonly kind: EntryKind;
  readonly isNegative: boolean;
  /** Without `!` and prefix. */
  readonly body: string;
};

const prefix = /^(regex|glob|name):/;

export function parseEntry(text: string): Entry {
  const isNegative = text.startsWith("!");
  const rest = isNegative ? text.slice(1) : text;
  const given = prefix.exec(rest);
  if (given) return { text, kind: given[1] as EntryKind, isNegative, body: rest.slice(given[0].length) };
  return { text, kind: kindOf(rest), isNegative, body: rest };
}

function kindOf(body: string): EntryKind {
  if (body.toLowerCase() === "all-linear") return "all-linear";
  if (/[\\()|^$+]/.test(body)) return "regex";
  // no regular expression starts with a star or has two in a row
  if (!/^\*|\*\*/.test(body) && (body.startsWith(".*") || /\.\*[^.,}]/.test(body))) return "regex";
  return /[*?[\]{}]/.test(body) ? "glob" : "name";
}

/** What is wrong with an entry. */
export type EntryProblem = {
  readonly code: "invalid-entry" | "invalid-regex";
  readonly message: string;
  readonly position?: number | null;
};

/** Far beyond any name of a module. Regular expressions have a bound of their own. */
const maxGlobLength = 100_000;

/** Tells by a module's name whether an entry matches it; all-linear as if it were a name. */
export type NameTest = (name: string) => boolean;

/** @returns the test, or what is wrong with the entry. */
export function compileEntry({ kind, body }: Entry): NameTest | EntryProblem {
  if (body === "") return { code: "invalid-entry", message: "is empty" };
  if (kind === "name" || kind === "all-linear") return (name) => name === body || name.endsWith(`.${body}`);
  let source = body;
  if (kind === "glob" && body.length > maxGlobLength)
    return { code: "invalid-entry", message: `is longer than ${maxGlobLength} characters` };
  if (kind === "glob") {
    const regex = globRegex(body);
    if (typeof regex !== "string")
      return { code: "invalid-entry", message: `has ${regex.message}`, position: regex.at };
    source = regex;
  }
  try {
    const pattern = kind === "glob" ? compileTail(source) : compile(source);
    return (name) => pattern.fullmatch(name) !== null;
  } catch (error) {
    if (!(error instanceof RegexError) || error.code !== "invalid-regex") throw error;
    const position = error.details["position"] as number | null;
    return { code: "invalid-regex", message: `is no regular expression: ${error.message}`, position };
  }
}

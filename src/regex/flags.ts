import { Flag, TYPE_FLAGS } from "./ast.ts";
import type { ParserState } from "./parser-state.ts";
import { codePointLength } from "./tokenizer.ts";

const LETTERS: Readonly<Record<string, number>> = {
  i: Flag.IGNORECASE,
  L: Flag.LOCALE,
  m: Flag.MULTILINE,
  s: Flag.DOTALL,
  x: Flag.VERBOSE,
  a: Flag.ASCII,
  t: Flag.TEMPLATE,
  u: Flag.UNICODE,
};

/** Flags of a group `(?add-remove:...)`. */
export type InlineFlags = { readonly add: number; readonly remove: number };

export const isFlagLetter = (token: string): boolean => Object.hasOwn(LETTERS, token);

/**
 * Reads inline flags from their first token on; global flags, `(?i)`, go into `state.flags`. Mirrors `_parse_flags`.
 */
export function parseFlags(state: ParserState, first: string): InlineFlags | "global" {
  const { source } = state;
  let token: string = first;
  let add = 0;
  let remove = 0;
  if (token !== "-") {
    for (;;) {
      const flag = LETTERS[token]!;
      if (token === "L") throw source.error("the flag L is for bytes only");
      add |= flag;
      if (flag & TYPE_FLAGS && (add & TYPE_FLAGS) !== flag)
        throw source.error("the flags a and u exclude each other");
      token = nextToken(state, ") or : or -");
      if (token === ")" || token === "-" || token === ":") break;
      checkLetter(state, token, ") or : or -");
    }
  }
  if (token === ")") {
    state.flags |= add;
    return "global";
  }
  if (add & Flag.TEMPLATE) throw source.error("the flag t cannot be set for a part of the pattern", 1);
  if (token === "-") {
    token = nextToken(state, "a flag");
    checkLetter(state, token, "a flag");
    for (;;) {
      const flag = LETTERS[token]!;
      if (flag & TYPE_FLAGS) throw source.error("the flags a, u and L cannot be turned off");
      remove |= flag;
      token = nextToken(state, ":");
      if (token === ":") break;
      checkLetter(state, token, ":");
    }
  }
  if (remove & Flag.TEMPLATE)
    throw source.error("the flag t cannot be turned off for a part of the pattern", 1);
  if (add & remove) throw source.error("a flag is both turned on and off", 1);
  return { add, remove };
}

function nextToken(state: ParserState, expected: string): string {
  const token = state.source.get();
  if (token === null) throw state.source.error(`inline flags end without ${expected}`);
  return token;
}

function checkLetter(state: ParserState, token: string, expected: string): void {
  if (isFlagLetter(token)) return;
  const reason = /^\p{L}$/u.test(token) ? `unknown flag ${token}` : `inline flags need ${expected} here`;
  throw state.source.error(reason, codePointLength(token));
}

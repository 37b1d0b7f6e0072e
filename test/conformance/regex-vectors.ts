/** Runs recorded results of Python's `re`: compile errors with positions, matches and groups. */
import { RegexError } from "../../src/errors.ts";
import { compile, type Pattern } from "../../src/regex/index.ts";
import type { Mismatch } from "./selection-vectors.ts";

export type RegexVector = {
  cat: string;
  p: string;
  s?: string;
  error?: string;
  pos?: number | null;
  full?: boolean;
  /** End of `re.match` in code points, null where it fails. */
  match?: number | null;
  groups?: (string | null)[];
  named?: Record<string, string | null>;
};

/** Undefined if the pattern does what Python's does. */
export function runRegexVector(vector: RegexVector): Mismatch | undefined {
  const expected = expectation(vector);
  const actual = observe(vector);
  return JSON.stringify(expected) === JSON.stringify(actual) ? undefined : { expected, actual };
}

const expectation = ({ error, pos, full, match, groups, named }: RegexVector): unknown =>
  error === undefined
    ? { full, match, ...(groups === undefined ? {} : { groups }), ...(named === undefined ? {} : { named }) }
    : { error: "invalid-regex", position: pos ?? null };

function observe({ p, s, groups, named }: RegexVector): unknown {
  let pattern: Pattern;
  try {
    pattern = compile(p);
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    return { error: error.code, position: error.details["position"] ?? null };
  }
  const text = s ?? "";
  const whole = pattern.fullmatch(text);
  const start = pattern.match(text);
  return {
    full: whole !== null,
    match: start === null ? null : [...text.slice(0, start.end)].length,
    ...(groups === undefined ? {} : { groups: whole?.groups.slice(1).map((group) => group ?? null) }),
    ...(named === undefined ? {} : { named: inOrder(named, whole?.named ?? {}) }),
  };
}

const inOrder = (
  keys: Record<string, unknown>,
  values: Readonly<Record<string, string | undefined>>,
): Record<string, string | null> =>
  Object.fromEntries(Object.keys(keys).map((key) => [key, values[key] ?? null]));

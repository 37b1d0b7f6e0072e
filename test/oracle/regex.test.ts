import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { isGraftError } from "../../src/errors.ts";
import { compile, type Match } from "../../src/regex/index.ts";

/**
 * Compares with a live interpreter: GRAFT_PYTHON must be Python 3.11, without packages.
 * GRAFT_REGEX_SEED and GRAFT_REGEX_CASES choose other cases.
 */
const python = process.env.GRAFT_PYTHON;
const seed = process.env.GRAFT_REGEX_SEED ?? "1";
const count = process.env.GRAFT_REGEX_CASES ?? "20000";
const script = fileURLToPath(new URL("../../scripts/check-regex.py", import.meta.url));

/** Why there is nothing to compare with; undefined if there is. */
function reasonToSkip(): string | undefined {
  if (!python) return "GRAFT_PYTHON names no interpreter";
  const version = execFileSync(python, ["-c", "import sys; print(sys.version.split()[0])"], {
    encoding: "utf8",
  });
  return version.startsWith("3.11.") ? undefined : `needs Python 3.11, GRAFT_PYTHON is ${version.trim()}`;
}

const skipped = reasonToSkip();

/** Start, end and groups of a match; indexes are code points. */
type Spans = [start: number, end: number, ...groups: (string | null)[]] | null;
type Warnings = [category: string, message: string][];
type Case = { p: string; warnings?: Warnings } & (
  | { error: string; pos: number | null }
  | { s: string; full: Spans; match: Spans; search: Spans }
);

/** What the script prints for some arguments. */
function record<T>(...options: string[]): T {
  const output = execFileSync(python!, [script, ...options], { maxBuffer: 1 << 30, encoding: "utf8" });
  return JSON.parse(output) as T;
}

/** What our engine does with a case, in the form of the case; undefined if it gives the pattern up. */
function observe(example: Case): unknown {
  try {
    const pattern = compile(example.p);
    if (!("s" in example)) return { p: example.p, compiled: true };
    const { s } = example;
    const spans = (match: Match | null): Spans =>
      match && [
        Array.from(s.slice(0, match.start)).length,
        Array.from(s.slice(0, match.end)).length,
        ...match.groups.slice(1).map((group) => group ?? null),
      ];
    return {
      p: pattern.pattern,
      ...(pattern.warnings.length > 0 && {
        warnings: pattern.warnings.map(({ category, message }) => [category, message]),
      }),
      s,
      full: spans(pattern.fullmatch(s)),
      match: spans(pattern.match(s)),
      search: spans(pattern.search(s)),
    };
  } catch (error) {
    if (!isGraftError(error)) throw error;
    if (error.code === "regex-too-slow") return undefined;
    return {
      p: example.p,
      error: "error" in example ? example.error : error.message,
      pos: error.details.position,
    };
  }
}

describe.skipIf(skipped !== undefined)(`a live Python${skipped ? ` (skipped: ${skipped})` : ""}`, () => {
  test(`random patterns, seed ${seed}`, { timeout: 600_000 }, () => {
    const { cases } = record<{ cases: Case[] }>("--seed", seed, "--count", count);
    let givenUp = 0;
    for (const example of cases) {
      const observed = observe(example);
      if (observed === undefined) givenUp++;
      else expect(observed).toEqual(example);
    }
    expect(givenUp, "patterns that Python finishes and we give up").toBeLessThan(1 + cases.length / 1_000);
  });

  test("every character, in classes and ignoring case", { timeout: 600_000 }, () => {
    const recorded = record<{
      cases: { p: string; boundaries: number[] }[];
      letters: string;
      cased: { p: string; matches: string }[];
    }>("--characters");
    for (const { p, boundaries } of recorded.cases) {
      const pattern = compile(p);
      const found: number[] = [];
      let before = false;
      for (let code = 0; code <= 0x10ffff; code++) {
        const now = pattern.fullmatch(String.fromCodePoint(code)) !== null;
        if (now !== before) found.push(code);
        before = now;
      }
      expect(found, p).toEqual(boundaries);
    }
    const letters = Array.from(recorded.letters);
    for (const { p, matches } of recorded.cased) {
      const pattern = compile(p);
      expect(letters.filter((letter) => pattern.fullmatch(letter)).join(""), p).toBe(matches);
    }
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isGraftError } from "../../src/errors.ts";
import { runBacktracker } from "../../src/regex/backtrack.ts";
import { compileBacktracker } from "../../src/regex/backtrack-nodes.ts";
import { type Extent, LazyDfa } from "../../src/regex/dfa.ts";
import { lower } from "../../src/regex/lower.ts";
import { parse } from "../../src/regex/parser.ts";
import { runProgram, type Spans } from "../../src/regex/pike.ts";
import { compileProgram, isRegular } from "../../src/regex/program.ts";
import { patterns, texts } from "./patterns.ts";

const extents: readonly Extent[] = ["full", "start", "anywhere"];

/** Result of the reference engine; skips the run if it takes too long, as (a*)*b may. */
function backtrack(pattern: string, text: string, extent: Extent): Spans | undefined {
  const parsed = parse(pattern);
  const matcher = compileBacktracker(lower(pattern, parsed), parsed.groupCount);
  try {
    return runBacktracker(matcher, codePoints(text), extent, 200_000);
  } catch (error) {
    fc.pre(!(isGraftError(error) && error.code === "regex-too-slow"));
    throw error;
  }
}

const codePoints = (text: string): number[] => Array.from(text, (character) => character.codePointAt(0)!);

describe("regular patterns", () => {
  const cases = [patterns({ regular: true }), texts, fc.constantFrom(...extents)] as const;

  test("the simulation finds the match and the groups that backtracking finds", () => {
    fc.assert(
      fc.property(...cases, (pattern, text, extent) => {
        const parsed = parse(pattern);
        const parts = lower(pattern, parsed);
        expect(isRegular(parts)).toBe(true);
        const spans = runProgram(compileProgram(parts)!, codePoints(text), extent, parsed.groupCount);
        expect(spans).toEqual(backtrack(pattern, text, extent));
      }),
      { numRuns: 4_000 },
    );
  });

  test("the lazy automaton finds a match where backtracking does", () => {
    fc.assert(
      fc.property(...cases, (pattern, text, extent) => {
        const automaton = new LazyDfa(compileProgram(lower(pattern, parse(pattern)))!, extent);
        const expected = backtrack(pattern, text, extent) !== undefined;
        expect(automaton.test(text)).toBe(expected);
        expect(automaton.test(text), "on the second run, when its states are there").toBe(expected);
      }),
      { numRuns: 4_000 },
    );
  });

  test("one automaton serves many texts", () => {
    const inputs = fc.array(texts, { minLength: 2, maxLength: 20 });
    fc.assert(
      fc.property(cases[0], inputs, cases[2], (pattern, many, extent) => {
        const program = compileProgram(lower(pattern, parse(pattern)))!;
        const shared = new LazyDfa(program, extent);
        expect(many.map((text) => shared.test(text))).toEqual(
          many.map((text) => new LazyDfa(program, extent).test(text)),
        );
      }),
    );
  });
});

describe("other patterns", () => {
  test("the automaton of the superset rejects nothing that matches", () => {
    const irregular = patterns({ regular: false });
    fc.assert(
      fc.property(irregular, texts, fc.constantFrom(...extents), (pattern, text, extent) => {
        fc.pre(backtrack(pattern, text, extent) !== undefined);
        const superset = compileProgram(lower(pattern, parse(pattern)), { relaxed: true })!;
        expect(new LazyDfa(superset, extent).test(text)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  test.each(["(a)\\1", "(?=a)a", "(?<!a)b", "(?>a)", "a*+", "(a)?(?(1)b|c)"])(
    "%s is not regular",
    (pattern) => {
      expect(isRegular(lower(pattern, parse(pattern)))).toBe(false);
    },
  );
});

test("an automaton with more states than it may keep starts afresh", () => {
  // 2^12 states: whether each of the last twelve letters was an a.
  const program = compileProgram(lower("(a|b)*a(a|b){11}", parse("(a|b)*a(a|b){11}")))!;
  const automaton = new LazyDfa(program, "full");
  let seed = 1;
  const text = Array.from({ length: 20_000 }, () => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return seed & 0x10000 ? "a" : "b";
  }).join("");
  for (let end = 12; end < text.length; end += 997)
    expect(automaton.test(text.slice(0, end))).toBe(text[end - 12] === "a");
  expect(automaton.test(text)).toBe(text.at(-12) === "a");
});

test("programs that would be too large are refused", () => {
  const pattern = "(?:a{100}){1000}";
  const parts = lower(pattern, parse(pattern));
  expect(compileProgram(parts)).toBeUndefined();
  expect(compileProgram(parts, { relaxed: true })).toBeDefined();
});

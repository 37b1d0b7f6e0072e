import { describe, expect, test } from "vitest";
import { RegexError } from "../../src/errors.ts";
import { compile } from "../../src/regex/index.ts";

/** Milliseconds that an action takes. */
function time(action: () => unknown): number {
  const start = performance.now();
  action();
  return performance.now() - start;
}

const long = "a".repeat(50_000);

describe("regular patterns take linear time, whatever they nest", () => {
  test.each([
    "(a+)+$",
    "(a*)*b",
    "(a|a)*b",
    "(a|aa)+b",
    "((a*)*)*b",
    "(.*)*(.*)*(.*)*b",
    "(?:a?){50}a{50}b",
    "(\\w+\\.?)+$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(?i:(A+)+)$",
  ])("%s on 50,000 characters", (pattern) => {
    const elapsed = time(() => {
      expect(compile(pattern).fullmatch(`${long}!`)).toBeNull();
      expect(compile(pattern).fullmatch(`${long}!\n`)).toBeNull();
      compile(pattern).match(`${long}!`);
      compile(pattern).search(`${long}!`);
    });
    expect(elapsed).toBeLessThan(2_000);
  });

  test.each(["(a+)+", "((a*)*)*", "(a|aa)+", "(.*)(.*)(.*)a", "(a?){100}a*", "(?:(a)|(aa)|a)*a"])(
    "the groups of %s too",
    (pattern) => {
      const elapsed = time(() => {
        const match = compile(pattern).fullmatch(long)!;
        expect(match.end).toBe(long.length);
        expect(match.groups[0]).toHaveLength(long.length);
      });
      expect(elapsed).toBeLessThan(4_000);
    },
  );

  test("groups agree with Python where backtracking gives up", () => {
    // re.fullmatch("(?:(a+)+b|(a+)+)c?", "a" * 20).groups() == (None, "a" * 20), after some 2^20 steps
    const match = compile("(?:(a+)+b|(a+)+)c?").fullmatch("a".repeat(3_000))!;
    expect(match.groups.slice(1)).toEqual([undefined, "a".repeat(3_000)]);
  });
});

describe("other patterns end within a bound", () => {
  test("texts that even a superset rejects are rejected in linear time", () => {
    expect(time(() => expect(compile("(?=a)(a+)+(?!a)$").fullmatch(`${long}!`)).toBeNull())).toBeLessThan(
      1_000,
    );
  });

  test.each(["(a+)+\\1$", "(?=a)(?:(?:a|a)+)+(?<!a)", "(?:(?=(a+))a)+(a+)+\\2b"])(
    "%s is given up",
    (pattern) => {
      let error: unknown;
      const elapsed = time(() => {
        try {
          compile(pattern).search(`${"a".repeat(40)}!b`);
          compile(pattern).fullmatch("a".repeat(41));
        } catch (thrown) {
          error = thrown;
        }
      });
      expect(elapsed).toBeLessThan(5_000);
      expect(error).toBeInstanceOf(RegexError);
      expect((error as RegexError).code).toBe("regex-too-slow");
      expect((error as RegexError).message).toContain("backtracks too much");
    },
  );

  test("counts that no automaton can hold do not hang the compiler", () => {
    const elapsed = time(() => {
      for (const pattern of [
        "(?:(?:(?:){100}){100}){100000}x",
        "((a{0,100}){0,100}){0,100}b",
        "(?:a{4294967294}){4294967294}",
      ])
        expect(compile(pattern).fullmatch("aaaa")).toBeNull();
      expect(compile("a{2,4294967294}").fullmatch(long)).not.toBeNull();
      expect(compile("a{0,49999}").fullmatch(long)).toBeNull();
      expect(compile("a{0,50000}").fullmatch(long)).not.toBeNull();
    });
    expect(elapsed).toBeLessThan(3_000);
  });

  test("repeat counts beyond 100,000 hold for texts that long", () => {
    const text = "a".repeat(200_001);
    expect(compile("a{0,200000}").fullmatch(text)).toBeNull();
    expect(compile("a{0,200001}").fullmatch(text)).not.toBeNull();
  });
});

test("a typical pattern takes little time on the names of a large model", () => {
  const names = Array.from(
    { length: 45_000 },
    (_, i) =>
      `base_model.model.model.decoder.layers.${i % 60}.self_attn.projections.${i % 7 ? "k" : "q"}_proj`,
  );
  const pattern = compile(String.raw`.*decoder\.layers\.(4|5)\..*(q_proj|v_proj)`);
  let matches = 0;
  const elapsed = time(() => {
    for (const name of names) if (pattern.fullmatch(name)) matches++;
  });
  expect(matches).toBe(names.filter((name) => /layers\.[45]\..*q_proj$/.test(name)).length);
  // 15 to 40 ms on one core; the bound allows for a busy machine.
  expect(elapsed).toBeLessThan(500);
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RegexError } from "../../src/errors.ts";
import * as regex from "../../src/regex/index.ts";

const { compile } = regex;

/** The error that an action throws. */
function errorOf(action: () => unknown): RegexError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(RegexError);
    return error as RegexError;
  }
  throw new Error("nothing was thrown");
}

test("exports", () => {
  expect(Object.keys(regex).sort()).toEqual(["compile", "escape"]);
});

describe("matches", () => {
  const layer = compile(String.raw`(?P<stem>.*)\.layers\.(?P<index>\d+)(\.bias)?`);

  test("fullmatch spans the whole text and tells groups, absent ones as undefined", () => {
    const match = layer.fullmatch("model.layers.12")!;
    expect([match.start, match.end]).toEqual([0, 15]);
    expect(match.groups).toEqual(["model.layers.12", "model", "12", undefined]);
    expect(match.named).toEqual({ stem: "model", index: "12" });
  });

  test("fullmatch, match and search differ in where a match may lie", () => {
    const digits = compile("[0-9]+");
    expect(digits.fullmatch("12a")).toBeNull();
    expect(digits.match("12a")?.groups).toEqual(["12"]);
    expect(digits.match("a12")).toBeNull();
    const found = digits.search("a12b")!;
    expect([found.start, found.end]).toEqual([1, 3]);
    expect(digits.search("ab")).toBeNull();
  });

  test("indexes are UTF-16, but a character beyond U+FFFF is one character", () => {
    const match = compile("(.)b").search("😀é😀b!")!;
    expect([match.start, match.end]).toEqual([3, 6]);
    expect(match.groups).toEqual(["😀b", "😀"]);
    expect(compile("..").fullmatch("😀")).toBeNull();
  });

  test("lone surrogates are characters of their own", () => {
    expect(compile("..").fullmatch("\udc00\ud800")).not.toBeNull();
    expect(compile(".\\udc00").fullmatch("\ud800\udc00"), "a pair is one character").toBeNull();
    expect(compile("[\\ud800-\\udbff]a").fullmatch("\ud83da")).not.toBeNull();
  });

  test("a group may have any name that Python allows", () => {
    const { named } = compile("(?P<__proto__>a)(?P<ключ>b)").fullmatch("ab")!;
    expect(Object.entries(named)).toEqual([
      ["__proto__", "a"],
      ["ключ", "b"],
    ]);
  });
});

describe("patterns", () => {
  test("are kept compiled", () => {
    expect(compile("a+")).toBe(compile("a+"));
  });

  test("the cache forgets what was not used for long", () => {
    const first = compile("first");
    const kept = compile("kept");
    for (let i = 0; i < 300; i++) {
      compile(`other${i}`);
      compile("kept");
    }
    expect(compile("kept")).toBe(kept);
    expect(compile("first")).not.toBe(first);
  });

  test("carry Python's warnings", () => {
    expect(compile("[[a]").warnings).toEqual([
      { category: "FutureWarning", message: "Possible nested set at position 1" },
    ]);
    expect(compile("()(?(+1)a)").warnings).toEqual([
      { category: "DeprecationWarning", message: "bad character in group name '+1' at position 5" },
    ]);
    expect(compile("[a]").warnings).toEqual([]);
  });

  test("count their groups", () => {
    expect(compile("(a)(?:b)(?P<c>(d))").groupCount).toBe(3);
  });
});

describe("errors", () => {
  test("say what is wrong and where", () => {
    const error = errorOf(() => compile(".*(q_proj|v_proj"));
    expect(error.message).toBe(
      'invalid regular expression ".*(q_proj|v_proj": the group has no closing ) at position 2.',
    );
    expect(error.code).toBe("invalid-regex");
    expect(error.details).toMatchObject({ pattern: ".*(q_proj|v_proj", position: 2 });
  });

  test.each([
    ["(?<n>a)", "(?<n is not a kind of group; a named group is (?P<name>...) at position 1."],
    ["*.q_proj", "nothing to repeat at position 0."],
    ["[z-a]", "z-a is not a range at position 1."],
    [String.raw`\p{L}`, String.raw`\p is not an escape at position 0.`],
    ["a(?i)b", "global flags must stand at the start of the pattern; use (?i:...) for a part at position 1."],
    ["(?<=a*)b", "a lookbehind must have a fixed width; each of its alternatives needs the same length."],
    ["(?t)a*", "the flag t does not allow quantifiers."],
    ["(a)(?P<a>)(?P<a>)", 'group name "a" is used twice (groups 2 and 3) at position 14.'],
    [String.raw`\N{SNOWPERSON}`, 'unknown character name "SNOWPERSON"'],
    ["()(?(1)a|b|c)", "a conditional has at most two branches at position 10."],
  ])("%s", (pattern, message) => {
    expect(errorOf(() => compile(pattern)).message).toContain(`: ${message}`);
  });

  test("positions count code points", () => {
    expect(errorOf(() => compile("😀😀(")).details.position).toBe(2);
  });

  test("nesting deeper than Python's recursion limit is an error, not a crash", () => {
    expect(compile(`${"(".repeat(490)}a${")".repeat(490)}`).fullmatch("a")).not.toBeNull();
    const error = errorOf(() => compile("(".repeat(100_000)));
    expect(error.details.position).toBeNull();
  });
});

describe("escape", () => {
  test("escapes what Python escapes", () => {
    expect(regex.escape("model.layers.0 (x)-#~&\n_/é")).toBe(
      "model\\.layers\\.0\\ \\(x\\)\\-\\#\\~\\&\\\n_/é",
    );
  });

  test("makes a pattern that matches just the text, also with the flag x and in sets", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (text, other) => {
        expect(compile(regex.escape(text)).fullmatch(text)).not.toBeNull();
        expect(compile(`(?x)${regex.escape(text)}`).fullmatch(text)).not.toBeNull();
        expect(compile(regex.escape(text)).fullmatch(other) !== null).toBe(text === other);
        for (const character of text)
          expect(compile(`[${regex.escape(text)}]`).fullmatch(character)).not.toBeNull();
      }),
    );
  });
});

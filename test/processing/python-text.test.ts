import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asciiOnly, findAll, looksBehind, parseInteger, strip } from "../../src/processing/python-text.ts";

describe("strip", () => {
  it("takes what Python takes for white space, and no more", () => {
    expect(strip("\x1c\x1d\x1e\x1f\x85\xa0\u3000\u2028 a b\t\n\v\f\r\u205f")).toBe("a b");
    expect(strip("\ufeffa\u200b")).toBe("\ufeffa\u200b");
  });
});

describe("asciiOnly", () => {
  it("drops characters, surrogate pairs whole", () => expect(asciiOnly("café 🎉\x7f")).toBe("caf \x7f"));
});

describe("parseInteger", () => {
  it.each([
    ["007", 7n],
    ["٣٤", 34n],
    ["𝟗𝟘𝟙", 901n],
    ["९๑", 91n],
    ["9".repeat(30), 10n ** 30n - 1n],
  ])("%s", (digits, expected) => expect(parseInteger(digits)).toBe(expected));

  it("reads what JavaScript writes", () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n }), (value) => parseInteger(value.toString()) === value));
  });
});

describe("findAll", () => {
  it("finds what JavaScript finds for a pattern that both read alike", () => {
    const pattern = "(a+)(b?)<";
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("a", "b", "<", "🎉") }), (text) => {
        expect([...findAll(pattern, text)].map(({ groups }) => [...groups])).toEqual(
          [...text.matchAll(new RegExp(pattern, "gu"))].map((match) => [...match]),
        );
      }),
    );
  });

  it("ends on empty matches", () => expect([...findAll("a*", "baab")]).toHaveLength(4));
});

describe("looksBehind", () => {
  it.each(["^a", "a|^b", "\\ba", "a\\B", "\\Aa", "(?<=a)b", "(?<!a)b", "[^a]^"])("%s does", (pattern) =>
    expect(looksBehind(pattern)).toBe(true),
  );
  it.each(["[^<]+", "a\\^b", "(?P<n>a)", "[]^]", "\\\\bc", "(?=a)", "(?!a)", "[\\b]x", "a$"])(
    "%s does not",
    (pattern) => expect(looksBehind(pattern)).toBe(false),
  );
});

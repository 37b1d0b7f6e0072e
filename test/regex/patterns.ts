import fc from "fast-check";

/** Random patterns over a and b, all of them valid. */
export type PatternOptions = {
  /** Only what an automaton can do. */
  regular: boolean;
};

const quantifiers = ["*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,3}?", "{2,}", "{0}"];
const possessive = ["*+", "++", "?+", "{1,2}+"];
const atoms = [
  "a",
  "b",
  ".",
  "[ab]",
  "[^a]",
  "^",
  "$",
  "\\b",
  "\\B",
  "\\w",
  "(?i:A)",
  "(?m:^)",
  "(?m:$)",
  "\\Z",
  "",
];

/** A pattern; its groups are not named and it refers to none. */
export function patterns({ regular }: PatternOptions): fc.Arbitrary<string> {
  const { pattern } = fc.letrec<{ pattern: string; item: string }>((tie) => ({
    pattern: fc
      .array(fc.array(tie("item"), { maxLength: 3 }), { minLength: 1, maxLength: 3 })
      .map((branches) => branches.map((items) => items.join("")).join("|")),
    item: fc.oneof(
      { maxDepth: 4, depthIdentifier: "pattern", withCrossShrink: true },
      fc.constantFrom(...atoms),
      fc
        .tuple(
          fc.constantFrom("(", "(", "(?:", ...(regular ? [] : ["(?=", "(?!", "(?>"])),
          tie("pattern"),
          fc.constantFrom("", ...quantifiers, ...(regular ? [] : possessive)),
        )
        .map(([open, body, quantifier]) => `${open}${body})${quantifier}`),
    ),
  }));
  return pattern;
}

/** Short texts over the letters of `patterns`, and a few that make a difference. */
export const texts: fc.Arbitrary<string> = fc.string({
  unit: fc.constantFrom("a", "a", "b", "b", "\n", "-", "😀"),
  maxLength: 9,
});

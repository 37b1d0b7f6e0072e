import { describe, expect, test } from "vitest";
import { compile } from "../../src/regex/index.ts";

/**
 * Where engines differ and Python 3.11.7 has its own answer. Recorded with
 *   m = re.match(pattern, text); m and [m.group(0), *m.groups()]
 */
const recorded: [claim: string, pattern: string, text: string, result: (string | null)[] | null][] = [
  ["a loop is entered with an empty iteration", "(a*)*", "b", ["", ""]],
  ["an empty iteration may end a loop", "(a|b*)*", "ab", ["ab", ""]],
  ["no iteration begins where the last began", "(|a)*", "aa", ["", ""]],
  ["obligatory iterations may all be empty", "(|a)+", "aa", ["", ""]],
  ["a lazy loop of lazy loops", "(a*?)*?$", "aa", ["aa", "a"]],
  ["a lazy loop of optional items", "(a?)*?b", "aab", ["aab", "a"]],
  ["captures outlive later iterations", "(?:(a)|b)*", "ab", ["ab", "a"]],
  ["also of a counted repeat", "(?:(a)|b){2}", "ab", ["ab", "a"]],
  ["alternatives are tried in order, not by length", "(a|ab)(c|bcd)(d*)", "abcd", ["abcd", "a", "bcd", ""]],
  ["a lookahead keeps its captures", "((a)|b(?=(a)))*", "ba", ["ba", "a", "a", "a"]],
  ["a failed lookahead does not", "(?!(a)b)a", "ac", ["a", null]],
  ["an optional lookahead is still tried", "(a)?(?=(b))?", "ab", ["a", "a", "b"]],
  ["a lookahead is not reconsidered", "(?=(a*))\\1b", "aab", ["aab", "aa"]],
  ["a group counts as matched inside itself from its second round", "(a(?(1)b|c))+", "acab", ["acab", "ab"]],
  ["a possessive repeat keeps captures of a failed way", "(?:(a)(?:x|y)|ab)*+", "axab", ["axab", "a"]],
  ["$ stands before a final newline", "$", "\n", [""]],
  ["\\b fails in an empty text", "\\b", "", null],
  ["so does \\B", "\\B", "", null],
  ["a set with an upper-case letter beyond U+FFFF does not ignore case", "(?i)[𐐀b]", "𐐀", null],
  ["a range of such letters does", "(?i)[𐐀-𐐁]", "𐐨", ["𐐨"]],
  ["k and the kelvin sign are one letter", "(?i)k", "\u212a", ["\u212a"]],
  ["s and long s are one letter", "(?i)s", "\u017f", ["\u017f"]],
  ["but not for ASCII patterns", "(?ia)s", "\u017f", null],
  ["a letter has one character in the other case", "(?i)ss", "ß", null],
  ["underscores in group numbers are let through", "()(?(0_1)a)", "a", ["a", ""]],
];

describe("as Python 3.11.7", () => {
  test.each(recorded)("%s: %s on %j", (_claim, pattern, text, result) => {
    const match = compile(pattern).match(text);
    expect(match?.groups.map((group) => group ?? null) ?? null).toEqual(result);
  });

  test("the possessive repeat reports a later capture than the greedy one", () => {
    expect(compile("(?:([ac])(?:x|y)|cb)*+").match("axcb")!.groups).toEqual(["axcb", "c"]);
    expect(compile("(?:([ac])(?:x|y)|cb)*").match("axcb")!.groups).toEqual(["axcb", "a"]);
  });
});

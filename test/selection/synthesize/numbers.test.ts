import fc from "fast-check";
import { expect, test } from "vitest";
import { compile } from "../../../src/regex/index.ts";
import { numberPattern } from "../../../src/selection/synthesize/numbers.ts";

const range = (start: number, end: number, step = 1): number[] => {
  const numbers: number[] = [];
  for (let i = start; i < end; i += step) numbers.push(i);
  return numbers;
};

test.each<[string, number[], number, string]>([
  ["all", range(0, 6), 6, "\\d+"],
  ["one", [4], 6, "4"],
  ["the only one", [0], 1, "0"],
  ["two", [4, 5], 6, "[45]"],
  ["a range over ten", range(2, 12), 24, "(?:[2-9]|1[01])"],
  ["the last quarter", range(24, 32), 32, "(?:2[4-9]|3[01])"],
  ["all but the first", range(1, 12), 12, "(?:[1-9]|1[01])"],
  ["a decade", range(10, 20), 32, "1\\d"],
  ["odd, short", [1, 3, 5], 6, "[135]"],
  ["odd", range(1, 24, 2), 24, "\\d*[13579]"],
  ["even", range(0, 32, 2), 32, "\\d*[02468]"],
  ["every fourth", range(3, 32, 4), 32, "(?:[37]|1[159]|2[37]|31)"],
  ["over a hundred", range(90, 130), 256, "(?:9\\d|1[0-2]\\d)"],
  ["some, anywhere", [0, 7, 12, 15, 22, 25], 28, "(?:[07]|[12][25])"],
])("%s", (_, wanted, length, expected) => {
  const pattern = numberPattern(wanted, range(0, length));
  expect(pattern).toBe(expected);
  const regex = compile(pattern);
  expect(range(0, length).filter((index) => regex.fullmatch(String(index)) !== null)).toEqual(wanted);
});

test("exactly the wanted numbers of any list", () => {
  const list = fc.uniqueArray(fc.oneof(fc.nat(40), fc.nat(300), fc.nat(12_000)), {
    minLength: 1,
    maxLength: 60,
  });
  fc.assert(
    fc.property(list, fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }), (available, flags) => {
      const wanted = available.filter((_, i) => flags[i]);
      fc.pre(wanted.length > 0);
      const regex = compile(numberPattern(wanted, available));
      expect(available.filter((index) => regex.fullmatch(String(index)) !== null)).toEqual(wanted);
    }),
    { numRuns: 1500 },
  );
});

test("exactly the wanted ranges of a list, and no number beyond it", () => {
  fc.assert(
    fc.property(fc.nat(130), fc.nat(130), fc.nat(400), (start, length, more) => {
      const wanted = range(start, start + length + 1);
      const available = range(0, start + length + 2 + more);
      const pattern = numberPattern(wanted, available);
      const regex = compile(pattern);
      expect(
        available.concat(range(900, 1100)).filter((index) => regex.fullmatch(String(index)) !== null),
      ).toEqual(wanted);
    }),
    { numRuns: 600 },
  );
});

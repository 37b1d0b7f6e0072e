import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LayerExpression } from "../../../src/selection/groups/layer-expression.ts";

const six = [0, 1, 2, 3, 4, 5];
const parse = (text: string): LayerExpression => {
  const parsed = LayerExpression.parse(text);
  if (!(parsed instanceof LayerExpression)) throw new Error(JSON.stringify(parsed));
  return parsed;
};
const layersOf = (text: string, indices: readonly number[] = six): number[] =>
  [...parse(text).of(indices).layers].sort((a, b) => a - b);

describe("the layers of a list of six", () => {
  test.each([
    ["3", [3]],
    ["-1", [5]],
    ["-6", [0]],
    ["2-4", [2, 3, 4]],
    ["3-3", [3]],
    ["-3--2", [3, 4]],
    ["1--2", [1, 2, 3, 4]],
    ["-2:", [4, 5]],
    [":4", [0, 1, 2, 3]],
    [":", six],
    ["::2", [0, 2, 4]],
    ["1::2", [1, 3, 5]],
    ["1:-1", [1, 2, 3, 4]],
    ["::-2", [1, 3, 5]],
    ["4:99", [4, 5]],
    ["-99:2", [0, 1]],
    ["4:2", []],
    ["first 2", [0, 1]],
    ["last 2", [4, 5]],
    ["last 99", six],
    ["first 0", []],
    ["middle 2", [2, 3]],
    ["middle 3", [1, 2, 3]],
    ["first 25%", [0, 1]], // 1.5 layers: halves up
    ["last 50%", [3, 4, 5]],
    ["first 8%", []], // 0.48 layers
    ["last 33.3%", [4, 5]],
    ["middle 100%", six],
    ["odd", [1, 3, 5]],
    ["even", [0, 2, 4]],
    ["all", six],
    ["none", []],
    ["0, -1", [0, 5]],
    ["first 2,4-5", [0, 1, 4, 5]],
    ["!3", [0, 1, 2, 4, 5]],
    ["!odd,all", [0, 2, 4]],
    ["!first 1, !last 1", [1, 2, 3, 4]],
    ["LAST  2", [4, 5]],
  ])("%s", (text, expected) => {
    expect(layersOf(text)).toEqual(expected);
    expect(parse(text).of(six).missing).toEqual([]);
  });

  test.each([
    ["6", ["6"]],
    ["-7", ["-7"]],
    ["4-7", ["4-7"]],
    ["0,9,!8", ["9", "!8"]],
  ])("%s names layers that are not there", (text, missing) => {
    expect(parse(text).of(six).missing).toEqual(missing);
  });
});

test("numbers are those of the items, the rest counts positions", () => {
  const gaps = [2, 5, 7];
  expect(layersOf("5", gaps)).toEqual([5]);
  expect(layersOf("-1", gaps)).toEqual([7]);
  expect(layersOf("2-7", gaps)).toEqual(gaps);
  expect(layersOf("-2:", gaps)).toEqual([5, 7]);
  expect(layersOf("odd", gaps)).toEqual([5, 7]);
  expect(parse("3").of(gaps).missing).toEqual(["3"]);
});

test.each([
  ["", 0, /is empty/],
  ["1,,2", 2, /is empty/],
  ["x", 0, /is none of: a number/],
  ["0, lats 2", 3, /closest: "last"/],
  ["first", 0, /needs a number of layers or a percentage, as in "first 4"/],
  ["first 2.5", 0, /whole number of layers, or a percentage/],
  ["last 101%", 0, /more than 100 %/],
  ["5-2", 0, /runs backwards; write 2-5/],
  ["1.5", 0, /is none of/],
  ["::0", 0, /step of 0/],
  ["1:2:3:4", 0, /is none of/],
  ["!!1", 0, /is none of/],
])("%j is refused, with the position", (text, at, message) => {
  expect(LayerExpression.parse(text)).toEqual([
    expect.objectContaining({ at, message: expect.stringMatching(message) }),
  ]);
});

test("every wrong term is listed", () => {
  expect(LayerExpression.parse("a,1,b")).toMatchObject([
    { term: "a", at: 0 },
    { term: "b", at: 4 },
  ]);
});

const bound = fc.option(fc.integer({ min: -9, max: 9 }), { nil: undefined });

test("slices are Python's", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), bound, bound, bound, (length, start, stop, step) => {
      fc.pre(step !== 0);
      const indices = Array.from({ length }, (_, i) => i);
      const text = [start, stop, step].map((n) => n ?? "").join(":");
      // Python's definition: i, i + step, … that stay inside, from the clipped start
      const s = step ?? 1;
      const [low, high] = s > 0 ? [0, length] : [-1, length - 1];
      const clip = (n: number): number => Math.max(low, Math.min(high, n < 0 ? n + length : n));
      const from = start === undefined ? (s > 0 ? 0 : length - 1) : clip(start);
      const to = stop === undefined ? (s > 0 ? length : -1) : clip(stop);
      const expected = indices.filter((i) =>
        s > 0 ? i >= from && i < to && (i - from) % s === 0 : i <= from && i > to && (from - i) % -s === 0,
      );
      expect(layersOf(text, indices)).toEqual(expected);
    }),
  );
});

test("the order of terms does not matter", () => {
  const term = fc.oneof(
    fc.integer({ min: -6, max: 5 }).map(String),
    fc.constantFrom("odd", "even", "last 2", "first 50%", "1:3", "!2", "!-1", "!odd"),
  );
  fc.assert(
    fc.property(fc.array(term, { minLength: 1, maxLength: 5 }), fc.func(fc.integer()), (terms, key) => {
      const shuffled = [...terms].sort((a, b) => key(a) - key(b));
      expect(layersOf(shuffled.join(","))).toEqual(layersOf(terms.join(",")));
    }),
  );
});

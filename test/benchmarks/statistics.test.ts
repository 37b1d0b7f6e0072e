import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fitLine, median, spread } from "../../benchmarks/statistics.ts";

describe("median", () => {
  test.each([
    [[3], 3],
    [[4, 1], 2.5],
    [[10, 1, 2], 2],
    [[9, 1, 3, 2], 2.5],
  ])("of %j is %d", (values, expected) => {
    expect(median(values)).toBe(expected);
  });

  test("of nothing does not exist", () => {
    expect(() => median([])).toThrow("median of nothing");
  });
});

test("a spread has the median between the least and the greatest", () => {
  expect(spread([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
});

test("the fitted line of points on a line is that line", () => {
  fc.assert(
    fc.property(fc.integer({ min: -50, max: 50 }), fc.integer({ min: -50, max: 50 }), (slope, intercept) => {
      const line = fitLine([1, 2, 4, 8, 30].map((x) => [x, slope * x + intercept]));
      expect(line.slope).toBeCloseTo(slope, 9);
      expect(line.intercept).toBeCloseTo(intercept, 9);
    }),
  );
});

test("the fitted line goes between points beside it", () => {
  expect(
    fitLine([
      [0, 0],
      [0, 2],
      [2, 4],
      [2, 6],
    ]),
  ).toEqual({ slope: 2, intercept: 1 });
});

import { describe, expect, test } from "vitest";
import { barChart, lineChart, ticks } from "../../benchmarks/svg.ts";

describe("ticks", () => {
  test.each([
    [1, [0, 0.2, 0.4, 0.6, 0.8, 1]],
    [30, [0, 10, 20, 30]],
    [4.2, [0, 1, 2, 3, 4, 5]],
    [0.07, [0, 0.02, 0.04, 0.06, 0.08]],
    [0, [0, 1]],
  ])("up to %d", (most, expected) => {
    expect(ticks(most)).toEqual(expected);
  });
});

const chart = {
  title: "time < layers",
  x: "layers",
  y: "seconds",
  lines: [
    { name: "Graft", colour: "a" as const, points: [[1, 1] as const, [10, 2] as const] },
    { name: "predicted", colour: "c" as const, dashed: true, points: [[1, 1.1] as const, [10, 2] as const] },
  ],
};

describe("a line chart", () => {
  const svg = lineChart(chart);

  test("follows the reader's colours and escapes its text", () => {
    expect(svg).toContain("prefers-color-scheme: dark");
    expect(svg).toContain('<text x="16" y="26" class="title">time &lt; layers</text>');
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 \d+ \d+"/);
  });

  test("has a path for each line, and points on what was measured alone", () => {
    expect(svg.match(/<path /g)).toHaveLength(2);
    expect(svg.match(/<circle /g)).toHaveLength(2);
    expect(svg).toContain('class="line c dashed"');
  });

  test("puts the origin at the bottom left", () => {
    const [, x, y] = /<circle class="fill-a" cx="([\d.]+)" cy="([\d.]+)"/.exec(svg)!.map(Number);
    const [, farX, farY] = [...svg.matchAll(/<circle class="fill-a" cx="([\d.]+)" cy="([\d.]+)"/g)][1]!.map(
      Number,
    );
    expect(farX! - x!).toBeCloseTo((9 / 10) * (680 - 64 - 190), 0);
    expect(y! - farY!).toBeCloseTo(0.5 * (380 - 48 - 52), 0);
  });
});

test("bars are as long as their values, and marks stand at theirs", () => {
  const svg = barChart({
    title: "t",
    caption: "c",
    bars: [
      { name: "half", value: 1, colour: "a", mark: 2 },
      { name: "whole", value: 2, colour: "b" },
    ],
  });
  const widths = [...svg.matchAll(/<rect class="fill-[ab]" [^>]*width="([\d.]+)"/g)].map(([, width]) =>
    Number(width),
  );
  expect(widths[1]! / widths[0]!).toBeCloseTo(2, 2);
  expect(svg).toContain(`<line class="line c" x1="${430 + widths[1]!}"`);
  expect(svg).toContain(">2.00×</text>");
});

import type { Spread } from "./statistics.ts";

/** A table whose first row is the head. Columns are right-aligned but for the first `texts`. */
export function markdown(rows: readonly (readonly string[])[], texts = 1): string {
  const widths = rows[0]!.map((_, column) => Math.max(3, ...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (i < texts ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (i < texts ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join("\n");
}

export const NOTHING = "–";

export const seconds = (value: number): string => `${value.toFixed(value < 1 ? 3 : value < 100 ? 2 : 0)} s`;
export const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
export const times = (ratio: number): string => `${ratio.toFixed(2)}×`;

/** The median, with the least and the greatest where rounds differ. */
export function spreadText(value: Spread | undefined, text: (value: number) => string): string {
  if (value === undefined) return NOTHING;
  const [median, min, max] = [value.median, value.min, value.max].map(text) as [string, string, string];
  return min === max ? median : `${median} (${min.replace(/[^\d.]+$/, "")}–${max})`;
}

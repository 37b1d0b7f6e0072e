import type { MatrixRow, SelectionMatrix } from "../selection/index.ts";
import { numberRanges } from "../selection/index.ts";
import { printable } from "./style.ts";
import { table } from "./table.ts";

/** Longer entries are cut. */
const longestEntry = 48;

/**
 * The matrix of entries and layers for people: one table per stack of layers, whose columns are layers that every
 * entry treats alike; then what lies outside of the stacks, and entries that took nothing.
 */
export function renderMatrix({ stacks, rows }: SelectionMatrix): string[] {
  const lines: string[] = [];
  const used = rows.filter(({ total }) => total > 0);
  stacks.forEach(({ path, layers }, stack) => {
    const own = used.filter(({ counts }) => counts[stack]!.some((count) => count > 0));
    if (own.length === 0) return;
    const columns = foldColumns(own, stack, layers);
    lines.push(
      table(
        [
          { title: printable(path === "" ? "layers" : path) },
          ...columns.map(({ title }) => ({ title, align: "right" as const })),
          { title: "total", align: "right" },
        ],
        own.map((row) => [
          labelOf(row),
          ...columns.map(({ position }) => String(row.counts[stack]![position] || "·")),
          String(row.counts[stack]!.reduce((sum, count) => sum + count, 0)),
        ]),
      ),
      "",
    );
  });
  const outside = used.filter((row) => row.outside > 0);
  if (outside.length > 0)
    lines.push(
      table(
        [{ title: "outside of layers" }, { title: "total", align: "right" }],
        outside.map((row) => [labelOf(row), String(row.outside)]),
      ),
      "",
    );
  const idle = rows.filter(({ total }) => total === 0);
  if (idle.length > 0) lines.push(`took nothing: ${idle.map(labelOf).join(", ")}`, "");
  return lines.slice(0, -1);
}

/** Layers with equal counts in all rows, as one column. */
function foldColumns(
  rows: readonly MatrixRow[],
  stack: number,
  layers: readonly number[],
): { title: string; position: number }[] {
  const alike = new Map<string, { numbers: number[]; position: number }>();
  layers.forEach((number, position) => {
    const key = rows.map(({ counts }) => counts[stack]![position]).join();
    const known = alike.get(key);
    if (known === undefined) alike.set(key, { numbers: [number], position });
    else known.numbers.push(number);
  });
  return [...alike.values()].map(({ numbers, position }) => ({ title: numberRanges(numbers), position }));
}

function labelOf({ entry, part, from, group }: MatrixRow): string {
  const shown = entry.length > longestEntry ? `${entry.slice(0, longestEntry - 1)}…` : entry;
  const label = printable(part === undefined ? shown : part === entry ? part : `${shown} › ${part}`);
  const origin = from === undefined ? "" : ` (${from.join(", ")})`;
  return `${group === undefined ? "" : `${group + 1}. `}${label}${origin}`;
}

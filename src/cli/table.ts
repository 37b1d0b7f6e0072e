import { textWidth } from "./style.ts";

type Column = { readonly title: string; readonly align?: "left" | "right" };

/** Rows of a table beyond which it is cut: nobody reads more, and `--json` has all. */
const shownRows = 200;

/** A table without lines; numbers belong to the right. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const shown = [columns.map(({ title }) => title), ...rows.slice(0, shownRows)];
  const widths = columns.map((_, i) => Math.max(...shown.map((row) => textWidth(row[i]!))));
  const text = shown
    .map((row) =>
      row
        .map((cell, i) => {
          const space = " ".repeat(widths[i]! - textWidth(cell));
          return columns[i]!.align === "right" ? space + cell : cell + space;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
  return rows.length > shownRows ? `${text}\n… and ${rows.length - shownRows} more (--json lists all)` : text;
}

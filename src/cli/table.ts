import CliTable from "cli-table3";

type Column = { readonly title: string; readonly align?: "left" | "right" };

/** Rows of a table beyond which it is cut: nobody reads more, and `--json` has all. */
const shownRows = 200;

/** A table without lines; numbers belong to the right. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const none = Object.fromEntries(
    [
      ...["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"],
      ...["left", "left-mid", "mid", "mid-mid", "right", "right-mid"],
    ].map((part) => [part, ""]),
  );
  const made = new CliTable({
    head: columns.map(({ title }) => title),
    colAligns: columns.map(({ align }) => align ?? "left"),
    chars: { ...none, middle: "  " },
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0, compact: true },
  });
  for (const row of rows.slice(0, shownRows)) made.push([...row]);
  const text = made
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
  return rows.length > shownRows ? `${text}\n… and ${rows.length - shownRows} more (--json lists all)` : text;
}

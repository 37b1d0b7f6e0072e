import type { SelectionDiff } from "../selection/index.ts";
import { printable, styled } from "./style.ts";

/** More lines are only counted. */
const shownLines = 200;

/** What two configurations select differently, for people. @param names what A and B are called. */
export function renderDiff(diff: SelectionDiff, names: { readonly a: string; readonly b: string }): string[] {
  if (diff.isEmpty) return [`${names.a} and ${names.b} select the same: ${diff.same} targets`];
  const ink = { "-": "red", "+": "green", "~": "yellow" } as const;
  const lines = diff.lines
    .slice(0, shownLines)
    .map((line) => styled(ink[line[0] as "-" | "+" | "~"], printable(line)));
  const rest = diff.lines.length - lines.length;
  return [
    `--- ${names.a}`,
    `+++ ${names.b}`,
    ...lines,
    ...(rest > 0 ? [`… and ${rest} more (--json lists all)`] : []),
    `${diff.same} targets are the same in both`,
  ];
}

/** The same for programs. */
export const diffJson = ({ lines: _lines, ...diff }: SelectionDiff): Omit<SelectionDiff, "lines"> => diff;

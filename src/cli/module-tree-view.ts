import type { ModuleInfo, ModuleTree } from "../selection/tree.ts";
import { grouped } from "./describe.ts";
import { foldTree, type ViewNode } from "./fold-tree.ts";
import { printable, styled, textWidth as width } from "./style.ts";

export type TreeViewOptions = {
  /** Levels shown below the root; all if left out. */
  readonly depth?: number | undefined;
  /** Modules to show, with what contains them; all if left out. */
  readonly only?: ((name: string) => boolean) | undefined;
  /** A short text for each marked module. Items of a list are shown as one only if their marks are equal. */
  readonly marks?: ReadonlyMap<string, string> | undefined;
  /** Show what is marked, with what contains it. */
  readonly onlyMarked?: boolean;
};

/** What a module's weight is, outermost dimension first; null where it has none, or several. */
export function shapeOf({ parameters }: ModuleInfo): readonly number[] | null {
  const weight = parameters.find(([name]) => name === "weight" || name === "in_proj_weight");
  return (weight ?? (parameters.length === 1 ? parameters[0] : undefined))?.[1] ?? null;
}

export const formatShape = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

/**
 * A model as a tree, one line a module. Items of a list that are alike in everything below them are one line,
 * `layers.0–5 × 6`; what is inside then counts for one item, and its share for all of them. Activations, dropout
 * and whatever else has no parameters is left out unless it is marked.
 */
export function moduleTreeView(tree: ModuleTree, options: TreeViewOptions = {}): string {
  const root = foldTree(tree, options);
  const all = Math.max(tree.numParameters, 1);
  const rows: Row[] = [];
  const add = (node: ViewNode, lead: string, branch: string, depth: number) => {
    rows.push(rowOf(node, lead + branch, all));
    const { children } = node;
    const more = depth >= (options.depth ?? Number.POSITIVE_INFINITY);
    if (more && children.length > 0) rows.at(-1)!.name += " …";
    if (more) return;
    const below = branch === "" ? "" : branch === "├─ " ? `${lead}│  ` : `${lead}   `;
    children.forEach((child, i) => {
      add(child, below, i === children.length - 1 ? "└─ " : "├─ ", depth + 1);
    });
  };
  add(root, "", "", 0);
  return layOut(rows);
}

type Row = { lead: string; name: string; cells: string[]; mark: string; remark: string; strong: boolean };

function rowOf(node: ViewNode, lead: string, all: number): Row {
  const { info, count, times, parameters, mark } = node;
  const shape = shapeOf(info);
  const what = info.kind === "module" || info.kind === "modulelist" ? info.className : info.kind;
  const several = shape === null && info.parameters.length > 0;
  const shapes = several
    ? info.parameters.map(([name, dims]) => `${printable(name)} ${formatShape(dims)}`).join(", ")
    : shape === null
      ? ""
      : formatShape(shape);
  const share = (100 * parameters * times) / all;
  return {
    lead,
    name: printable(node.label) + (count > 1 ? ` × ${grouped(count)}` : ""),
    cells: [
      shorten(printable(what)),
      shapes,
      parameters === 0 ? "" : grouped(parameters),
      times > 1 ? `× ${grouped(times)}` : "",
      parameters === 0 ? "" : share < 0.05 ? "<0.1 %" : `${share.toFixed(1)} %`,
    ],
    mark,
    remark: node.tiedTo === undefined ? "" : `tied to ${printable(node.tiedTo)}`,
    strong: node.children.length > 0,
  };
}

const rightAligned = [false, false, true, false, true];

/** Longer class names are cut in the middle. */
const longestClass = 32;

/** Longer shapes do not push the numbers of other lines off the screen. */
const widest = [longestClass, 40, 24, 12, 8];

function layOut(rows: readonly Row[]): string {
  const first = Math.max(...rows.map(({ lead, name }) => width(lead) + width(name)));
  const widths = rightAligned.map((_, i) =>
    Math.min(widest[i]!, Math.max(...rows.map(({ cells }) => width(cells[i]!)))),
  );
  return rows
    .map(({ lead, name, cells, mark, remark, strong }) => {
      const padding = " ".repeat(Math.max(0, first - width(lead) - width(name)));
      const shownName = mark !== "" ? styled("green", name) : strong ? styled("bold", name) : name;
      const shown = cells.map((cell, i) => {
        const space = " ".repeat(Math.max(0, widths[i]! - width(cell)));
        return rightAligned[i] === true ? space + cell : cell + space;
      });
      const text = `${styled("dim", lead)}${shownName}${padding}  ${styled("dim", shown[0]!)}  ${shown.slice(1).join("  ")}`;
      const after = [styled("green", mark), styled("dim", remark)].filter((part) => part !== "");
      return [text, ...after].join("  ").trimEnd();
    })
    .join("\n");
}

const shorten = (name: string): string =>
  name.length <= longestClass
    ? name
    : `${name.slice(0, longestClass / 2)}…${name.slice(1 - longestClass / 2)}`;

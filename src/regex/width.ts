import { type Ast, type Sequence, UNBOUNDED, type Width } from "./ast.ts";

const MAX_WIDTH = 2 ** 64;

/**
 * Width of a sequence, saturating at 2^64 as in CPython's `SubPattern.getwidth`.
 * `groupWidths[g]` is the width of the closed capture group g, for backreferences.
 */
export function widthOf(sequence: Sequence, groupWidths: readonly (Width | undefined)[]): Width {
  let least = 0;
  let most = 0;
  for (const node of sequence) {
    const [low, high] = nodeWidth(node, groupWidths);
    least += low;
    most += high;
  }
  return [Math.min(least, MAX_WIDTH), Math.min(most, MAX_WIDTH)];
}

function nodeWidth(node: Ast, groupWidths: readonly (Width | undefined)[]): Width {
  switch (node.op) {
    case "literal":
    case "any":
    case "in":
      return [1, 1];
    case "at":
    case "look":
      return [0, 0];
    case "group":
    case "atomic":
      return widthOf(node.body, groupWidths);
    case "branch":
      return node.branches.map((branch) => widthOf(branch, groupWidths)).reduce(either);
    case "repeat": {
      const [low, high] = widthOf(node.body, groupWidths);
      return [low * node.min, node.max === UNBOUNDED && high > 0 ? MAX_WIDTH : high * node.max];
    }
    case "backreference":
      return groupWidths[node.group]!;
    case "conditional":
      return either(
        widthOf(node.yes, groupWidths),
        node.no === undefined ? [0, 0] : widthOf(node.no, groupWidths),
      );
  }
}

const either = (a: Width, b: Width): Width => [Math.min(a[0], b[0]), Math.max(a[1], b[1])];

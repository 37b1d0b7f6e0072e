import { type Ast, itemKey, type Sequence, type SetItem, uniqueItems } from "./ast.ts";

/**
 * Alternatives -> one sequence: common beginnings come first, single characters become a set.
 * Mirrors the end of `_parse_sub`; it decides, for instance, how alternatives ignore case.
 */
export function joinBranches(branches: Sequence[]): Sequence {
  if (branches.length === 1) return branches[0]!;
  let common = 0;
  const first = branches[0]!;
  while (common < first.length && branches.every((branch) => isSameUnit(branch[common], first[common]!)))
    common++;
  const rests = branches.map((branch) => branch.slice(common));
  const set = asSet(rests);
  const join: Ast = set ? { op: "in", items: set, negate: false } : { op: "branch", branches: rests };
  return [...first.slice(0, common), join];
}

/** Whether two nodes are equal; nodes with a body of their own never are, as in CPython. */
function isSameUnit(a: Ast | undefined, b: Ast): boolean {
  if (a === undefined) return false;
  switch (a.op) {
    case "any":
      return b.op === "any";
    case "literal":
      return b.op === "literal" && a.code === b.code && a.negate === b.negate;
    case "at":
      return b.op === "at" && a.anchor === b.anchor;
    case "backreference":
      return b.op === "backreference" && a.group === b.group;
    case "in":
      return (
        b.op === "in" &&
        a.negate === b.negate &&
        a.items.length === b.items.length &&
        a.items.every((item, i) => itemKey(item) === itemKey(b.items[i]!))
      );
    default:
      return false;
  }
}

/** Members of the set that alternatives of one character amount to; undefined for other alternatives. */
function asSet(branches: readonly Sequence[]): SetItem[] | undefined {
  const items: SetItem[] = [];
  for (const branch of branches) {
    const [node] = branch;
    if (branch.length !== 1 || node === undefined) return undefined;
    if (node.op === "literal" && !node.negate) items.push({ op: "literal", code: node.code });
    else if (node.op === "in" && !node.negate) items.push(...node.items);
    else return undefined;
  }
  return uniqueItems(items);
}

import {
  type Anchor,
  type Ast,
  Flag,
  type ParsedPattern,
  type RepeatMode,
  type Sequence,
  TYPE_FLAGS,
  UNBOUNDED,
} from "./ast.ts";
import { anySet, type CaseMode, type CharSet, caseMode, literalSet, memberSet } from "./charset.ts";
import { invalidPattern } from "./tokenizer.ts";
import { widthOf } from "./width.ts";

/** A condition on a position. */
export type Position =
  | "start"
  | "line-start"
  | "end"
  | "line-end"
  | "before-final-newline"
  | "boundary"
  | "not-boundary"
  | "ascii-boundary"
  | "not-ascii-boundary";

/** Part of a pattern with its flags applied: sets of characters and positions take the place of syntax. */
export type Part =
  | { readonly op: "char"; readonly set: CharSet }
  | { readonly op: "at"; readonly position: Position }
  | { readonly op: "capture"; readonly group: number; readonly body: readonly Part[] }
  | { readonly op: "branch"; readonly branches: readonly (readonly Part[])[] }
  | {
      readonly op: "repeat";
      readonly min: number;
      /** Infinity where there is no upper bound. */
      readonly max: number;
      readonly mode: RepeatMode;
      readonly body: readonly Part[];
    }
  | { readonly op: "atomic"; readonly body: readonly Part[] }
  | {
      readonly op: "look";
      readonly negate: boolean;
      /** Characters to step back first; 0 in a lookahead. */
      readonly back: number;
      readonly body: readonly Part[];
    }
  | { readonly op: "backreference"; readonly group: number; readonly mode: CaseMode }
  | {
      readonly op: "conditional";
      readonly group: number;
      readonly yes: readonly Part[];
      readonly no: readonly Part[];
    };

/** Python's MAXCODE: the greatest width of a lookbehind. */
const MAX_LOOKBEHIND = 2 ** 32 - 1;

/**
 * Applies flags.
 * @throws RegexError "invalid-regex" for what Python finds only while compiling: lookbehinds of variable width.
 */
export function lower(pattern: string, parsed: ParsedPattern): Part[] {
  const sets = new Map<string, CharSet>();
  const lowerSequence = (sequence: Sequence, flags: number): Part[] =>
    sequence.flatMap((node) => lowerNode(node, flags));
  return lowerSequence(parsed.root, parsed.flags);

  function lowerNode(node: Ast, flags: number): Part | Part[] {
    switch (node.op) {
      case "literal":
        return char(literalSet(node.code, node.negate, flags));
      case "any":
        return char(anySet(flags));
      case "in":
        return char(memberSet(node.items, node.negate, flags));
      case "at":
        return { op: "at", position: positionOf(node.anchor, flags) };
      case "group": {
        const body = lowerSequence(node.body, combineFlags(flags, node.addFlags, node.deleteFlags));
        return node.index === undefined ? body : { op: "capture", group: node.index, body };
      }
      case "branch":
        return { op: "branch", branches: node.branches.map((branch) => lowerSequence(branch, flags)) };
      case "repeat": {
        if (flags & Flag.TEMPLATE)
          throw invalidPattern(pattern, "the flag t does not allow quantifiers", null);
        const max = node.max === UNBOUNDED ? Number.POSITIVE_INFINITY : node.max;
        const body = lowerSequence(node.body, flags);
        return { op: "repeat", min: node.min, max, mode: node.mode, body };
      }
      case "atomic":
        return { op: "atomic", body: lowerSequence(node.body, flags) };
      case "look": {
        const back = node.behind ? lookbehindWidth(node.body) : 0;
        return { op: "look", negate: node.negate, back, body: lowerSequence(node.body, flags) };
      }
      case "backreference":
        return { op: "backreference", group: node.group, mode: caseMode(flags) };
      case "conditional":
        return {
          op: "conditional",
          group: node.group,
          yes: lowerSequence(node.yes, flags),
          no: lowerSequence(node.no ?? [], flags),
        };
    }
  }

  /** One object per distinct set, so that engines can number them. */
  function char(set: CharSet): Part {
    const known = sets.get(set.key);
    if (!known) sets.set(set.key, set);
    return { op: "char", set: known ?? set };
  }

  function lookbehindWidth(body: Sequence): number {
    const [least, most] = widthOf(body, parsed.groupWidths);
    if (least > MAX_LOOKBEHIND) throw invalidPattern(pattern, "a lookbehind looks too far behind", null);
    if (least !== most)
      throw invalidPattern(
        pattern,
        "a lookbehind must have a fixed width; each of its alternatives needs the same length",
        null,
      );
    return least;
  }
}

function combineFlags(flags: number, add: number, remove: number): number {
  const base = add & TYPE_FLAGS ? flags & ~TYPE_FLAGS : flags;
  return (base | add) & ~remove;
}

function positionOf(anchor: Anchor, flags: number): Position {
  switch (anchor) {
    case "string-start":
      return "start";
    case "string-end":
      return "end";
    case "start":
      return flags & Flag.MULTILINE ? "line-start" : "start";
    case "end":
      return flags & Flag.MULTILINE ? "line-end" : "before-final-newline";
    case "boundary":
      return flags & Flag.UNICODE ? "boundary" : "ascii-boundary";
    case "not-boundary":
      return flags & Flag.UNICODE ? "not-boundary" : "not-ascii-boundary";
  }
}

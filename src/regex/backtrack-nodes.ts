import type { CaseMode, CharSet } from "./charset.ts";
import type { Part, Position } from "./lower.ts";

/** Step of the matcher; `next` is what follows. Targets are filled in from the end of the pattern backwards. */
export type Node =
  | { readonly op: "char"; readonly set: CharSet; readonly next: Node }
  | { readonly op: "at"; readonly position: Position; readonly next: Node }
  | { readonly op: "mark"; readonly slot: number; readonly next: Node }
  | { readonly op: "branch"; readonly branches: readonly Node[] }
  | CharRepeat
  | Repeat
  | { readonly op: "until"; readonly repeat: Repeat }
  | Possessive
  | { readonly op: "atomic"; body: Node; readonly next: Node }
  | { readonly op: "look"; readonly negate: boolean; readonly back: number; body: Node; readonly next: Node }
  | { readonly op: "backreference"; readonly group: number; readonly mode: CaseMode; readonly next: Node }
  | { readonly op: "conditional"; readonly group: number; readonly yes: Node; readonly no: Node }
  /** End of the pattern, and end of a part that is matched by itself. */
  | { readonly op: "success" }
  | { readonly op: "part-end" };

type Bounds = { readonly min: number; readonly max: number };

/** Repeat of single characters: needs no loop, only a range of positions to try. */
export type CharRepeat = Bounds & {
  readonly op: "char-repeat";
  readonly set: CharSet;
  readonly mode: "greedy" | "lazy" | "possessive";
  readonly next: Node;
};

export type Repeat = Bounds & {
  readonly op: "repeat";
  readonly lazy: boolean;
  /** Ends in an "until" of this repeat. */
  body: Node;
  readonly next: Node;
};

export type Possessive = Bounds & { readonly op: "possessive"; body: Node; readonly next: Node };

export type Backtracker = { readonly start: Node; readonly groupCount: number };

const success: Node = { op: "success" };
const partEnd: Node = { op: "part-end" };

export function compileBacktracker(parts: readonly Part[], groupCount: number): Backtracker {
  return { start: link(parts, success), groupCount };
}

function link(parts: readonly Part[], next: Node): Node {
  return parts.reduceRight((following, part) => linkPart(part, following), next);
}

function linkPart(part: Part, next: Node): Node {
  switch (part.op) {
    case "char":
    case "at":
    case "backreference":
      return { ...part, next };
    case "capture": {
      const close: Node = { op: "mark", slot: part.group * 2 - 1, next };
      return { op: "mark", slot: part.group * 2 - 2, next: link(part.body, close) };
    }
    case "branch":
      return { op: "branch", branches: part.branches.map((branch) => link(branch, next)) };
    case "repeat": {
      const { min, max, mode, body } = part;
      const [only] = body;
      if (body.length === 1 && only!.op === "char")
        return { op: "char-repeat", min, max, mode, set: only!.set, next };
      if (mode === "possessive") return { op: "possessive", min, max, body: link(body, partEnd), next };
      const repeat: Repeat = { op: "repeat", min, max, lazy: mode === "lazy", body: partEnd, next };
      repeat.body = link(body, { op: "until", repeat });
      return repeat;
    }
    case "atomic":
      return { op: "atomic", body: link(part.body, partEnd), next };
    case "look":
      return { ...part, body: link(part.body, partEnd), next };
    case "conditional":
      return { op: "conditional", group: part.group, yes: link(part.yes, next), no: link(part.no, next) };
  }
}

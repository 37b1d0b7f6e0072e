import { type Ast, type SetItem, uniqueItems } from "./ast.ts";
import { parseSetEscape } from "./escapes.ts";
import type { ParserState } from "./parser-state.ts";
import { codePointLength } from "./tokenizer.ts";

/** Doubled characters that a later Python may give a meaning in sets. */
const RESERVED_PAIRS: Readonly<Record<string, string>> = {
  "-": "difference",
  "&": "intersection",
  "~": "symmetric difference",
  "|": "union",
};

/** Reads a set after its opening bracket. Mirrors the `[` case of `_parse`. */
export function parseSet(state: ParserState): Ast {
  const { source } = state;
  const start = source.position - 1;
  const unterminated = () => source.error("the set has no closing ]", source.position - start);
  if (source.next === "[") state.warn("FutureWarning", `Possible nested set at position ${source.position}`);
  const negate = source.match("^");
  const items: SetItem[] = [];

  for (;;) {
    const token = source.get();
    if (token === null) throw unterminated();
    if (token === "]" && items.length > 0) break;
    const first = itemOf(state, token, () => {
      const pair = RESERVED_PAIRS[token];
      if (items.length > 0 && pair !== undefined && source.next === token)
        state.warn("FutureWarning", `Possible set ${pair} at position ${source.position - 1}`);
    });
    if (!source.match("-")) {
      items.push(first);
      continue;
    }
    const second = source.get();
    if (second === null) throw unterminated();
    if (second === "]") {
      items.push(first, { op: "literal", code: 45 });
      break;
    }
    const last = itemOf(state, second, () => {
      if (second === "-")
        state.warn("FutureWarning", `Possible set difference at position ${source.position - 2}`);
    });
    if (first.op !== "literal" || last.op !== "literal" || last.code < first.code)
      throw source.error(
        `${token}-${second} is not a range`,
        codePointLength(token) + 1 + codePointLength(second),
      );
    items.push({ op: "range", low: first.code, high: last.code });
  }
  return simplestSet(uniqueItems(items), negate);
}

/** One member; `check` runs for members that are not escapes. */
function itemOf(state: ParserState, token: string, check: () => void): SetItem {
  if (token[0] === "\\") return parseSetEscape(state, token);
  check();
  return { op: "literal", code: token.codePointAt(0)! };
}

function simplestSet(items: SetItem[], negate: boolean): Ast {
  const [only] = items;
  if (items.length === 1 && only!.op === "literal") return { op: "literal", code: only!.code, negate };
  return { op: "in", items, negate };
}

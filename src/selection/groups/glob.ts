import { compile, type Pattern } from "../../regex/index.ts";
import { regexEscape as literal } from "../python.ts";

/** What is wrong with a glob. `at`: characters before the place. */
export type GlobProblem = { readonly at: number; readonly message: string };

/** A bracket expression, e.g. `[0-9]` or `[!ab]`. */
const bracket = /\[(!?)([^[\]]+)\]/y;

/**
 * A glob over dotted names as a Python regular expression: `*` and `?` stay within one part of a name, `**` spans parts
 * (`**.x` and `x.**.y` also where there are none between), `[0-9]` is one of some characters, `[!0-9]` none of them,
 * `{a,b}` either.
 */
export function globRegex(glob: string): string | GlobProblem {
  let regex = "";
  /** Where braces are open, outermost first. */
  const open: number[] = [];
  for (let at = 0; at < glob.length; ) {
    const char = glob[at]!;
    if (char === "*") {
      const stars = /\**/y;
      stars.lastIndex = at;
      const end = at + stars.exec(glob)![0].length;
      const isStart = at === 0 || /[.{,]/.test(glob[at - 1]!);
      const isEnd = end === glob.length || /[.,}]/.test(glob[end]!);
      if (end - at === 1) regex += isStart && isEnd ? "[^.]+" : "[^.]*";
      else if (isStart && glob[end] === ".") {
        regex += "(?:.+\\.)?";
        at = end + 1;
        continue;
      } else regex += isStart && isEnd ? ".+" : ".*";
      at = end;
      continue;
    }
    if (char === "[") {
      bracket.lastIndex = at;
      const found = bracket.exec(glob);
      if (found === null) return { at, message: 'a "[" without its "]", or nothing between them' };
      const [text, isNegated, body] = found;
      const ranges = classOf(body!);
      if (ranges === undefined) return { at, message: `a range that runs backwards in ${text}` };
      regex += isNegated ? `[^.${ranges}]` : `[${ranges}]`;
      at += text.length;
      continue;
    }
    if (char === "{") {
      open.push(at);
      regex += "(?:";
    } else if (char === "}") {
      if (open.pop() === undefined) return { at, message: 'a "}" without its "{"' };
      regex += ")";
    } else if (char === "]") return { at, message: 'a "]" without its "["' };
    else if (char === "," && open.length > 0) regex += "|";
    else if (char === "?") regex += "[^.]";
    else regex += literal(char);
    at++;
  }
  const unclosed = open.at(-1);
  return unclosed === undefined ? regex : { at: unclosed, message: 'a "{" without its "}"' };
}

/** The inside of a bracket expression for Python, each character literal but the dash of a range. */
function classOf(body: string): string | undefined {
  let inside = "";
  for (let i = 0; i < body.length; i++) {
    const from = body[i]!;
    const to = body[i + 1] === "-" ? body[i + 2] : undefined;
    if (to === undefined) {
      inside += literal(from);
      continue;
    }
    if (from > to) return undefined;
    inside += `${literal(from)}-${literal(to)}`;
    i += 2;
  }
  return inside;
}

/** Matches the whole of a name, or what follows a dot in it. */
export const compileTail = (regex: string): Pattern => compile(`(?s:(?:.+\\.)?(?:${regex}))`);

/**
 * Patterns of Python 3.11's `re` -> syntax tree.
 * Follows the control flow of CPython's `re._parser`, because its errors, their positions, and its rewriting of
 * alternations are part of what a pattern means. The wording of errors is ours.
 */

import { type Ast, Flag, type ParsedPattern, type RepeatMode, type Sequence, UNBOUNDED } from "./ast.ts";
import { joinBranches } from "./branches.ts";
import { isDecimalDigit, parseEscape } from "./escapes.ts";
import { type InlineFlags, isFlagLetter, parseFlags } from "./flags.ts";
import { ParserState } from "./parser-state.ts";
import { MAX_INTEGER_DIGITS, parseInteger, pythonQuote } from "./python-text.ts";
import { parseSet } from "./set-parser.ts";
import { codePointLength, invalidPattern, Tokenizer } from "./tokenizer.ts";
import { isIdentifier } from "./unicode.ts";

const WHITESPACE = " \t\n\r\v\f";
const MAX_GROUPS = 1073741823;
/** Calls inside calls at which Python's parser hits its recursion limit; a group takes two. */
const MAX_NESTING = 991;

/**
 * Reads a pattern.
 * @throws RegexError "invalid-regex" where Python's `re.compile` fails; `details.position` is Python's, in code points,
 * or null where Python reports none.
 */
export function parse(pattern: string): ParsedPattern {
  const source = new Tokenizer(pattern);
  const state = new ParserState(source);
  const root = new Parser(state).alternation(false, 0);
  if (state.flags & Flag.ASCII && state.flags & Flag.UNICODE)
    throw invalidPattern(pattern, "the flags a and u exclude each other", null);
  if (!(state.flags & Flag.ASCII)) state.flags |= Flag.UNICODE;
  if (source.next !== null) throw source.error("unbalanced )");
  for (const [group, position] of state.conditionalReferences)
    if (group >= state.groups)
      throw invalidPattern(pattern, `reference to group ${group}, which does not exist`, position);
  return {
    root,
    flags: state.flags,
    groupCount: state.groups - 1,
    groupNames: state.groupNames,
    groupWidths: state.groupWidths,
    warnings: state.warnings,
  };
}

class Parser {
  readonly #state: ParserState;
  readonly #source: Tokenizer;

  constructor(state: ParserState) {
    this.#state = state;
    this.#source = state.source;
  }

  get #globallyVerbose(): boolean {
    return (this.#state.flags & Flag.VERBOSE) !== 0;
  }

  /** `a|b|c`. `nesting` is 0 for the whole pattern. */
  alternation(verbose: boolean, nesting: number): Sequence {
    const branches: Sequence[] = [];
    let inVerbose = verbose;
    for (;;) {
      branches.push(this.#sequence(inVerbose, nesting + 1, nesting === 0 && branches.length === 0));
      if (!this.#source.match("|")) break;
      if (nesting === 0) inVerbose = this.#globallyVerbose;
    }
    return joinBranches(branches);
  }

  /** What follows one another, up to `|`, `)` or the end. `first`: global flags may stand here. */
  #sequence(verbose: boolean, nesting: number, first = false): Sequence {
    const source = this.#source;
    if (nesting > MAX_NESTING) throw invalidPattern(source.pattern, "groups are nested too deeply", null);
    const sequence: Sequence = [];
    let inVerbose = verbose;
    for (;;) {
      const token = source.next;
      if (token === null || token === "|" || token === ")") break;
      source.get();
      if (inVerbose && WHITESPACE.includes(token)) continue;
      if (inVerbose && token === "#") {
        this.#skipComment();
        continue;
      }
      if (token[0] === "\\") sequence.push(parseEscape(this.#state, token));
      else if (token === "[") sequence.push(parseSet(this.#state));
      else if (token === "*" || token === "+" || token === "?" || token === "{")
        this.#repeat(sequence, token);
      else if (token === ".") sequence.push({ op: "any" });
      else if (token === "^") sequence.push({ op: "at", anchor: "start" });
      else if (token === "$") sequence.push({ op: "at", anchor: "end" });
      else if (token === "(") {
        const group = this.#group(inVerbose, nesting, first && sequence.length === 0);
        if (group === "global-flags") inVerbose = this.#globallyVerbose;
        else if (group) sequence.push(group);
      } else sequence.push({ op: "literal", code: token.codePointAt(0)!, negate: false });
    }
    return sequence.flatMap((node) => (isPlainGroup(node) ? node.body : [node]));
  }

  #skipComment(): void {
    for (;;) {
      const token = this.#source.get();
      if (token === null || token === "\n") return;
    }
  }

  /** Puts a quantifier on the last item. */
  #repeat(sequence: Sequence, token: string): void {
    const source = this.#source;
    const start = source.position;
    const bounds = this.#bounds(token, start);
    if (bounds === undefined) {
      sequence.push({ op: "literal", code: token.codePointAt(0)!, negate: false });
      return;
    }
    const item = sequence.at(-1);
    const back = source.position - start + 1;
    if (item === undefined || item.op === "at") throw source.error("nothing to repeat", back);
    if (item.op === "repeat") throw source.error("a quantifier follows a quantifier", back);
    const mode: RepeatMode = source.match("?") ? "lazy" : source.match("+") ? "possessive" : "greedy";
    const body = isPlainGroup(item) ? item.body : [item];
    sequence[sequence.length - 1] = { op: "repeat", ...bounds, mode, body };
  }

  /** Counts of a quantifier; undefined for a brace that is an ordinary character. */
  #bounds(token: string, start: number): { min: number; max: number } | undefined {
    const source = this.#source;
    if (token === "?") return { min: 0, max: 1 };
    if (token === "*") return { min: 0, max: UNBOUNDED };
    if (token === "+") return { min: 1, max: UNBOUNDED };
    if (source.next === "}") return undefined;
    const low = source.getWhile(Number.POSITIVE_INFINITY, isDecimalDigit);
    const high = source.match(",") ? source.getWhile(Number.POSITIVE_INFINITY, isDecimalDigit) : low;
    if (!source.match("}")) {
      source.seek(start);
      return undefined;
    }
    const min = low === "" ? 0 : this.#count(low);
    const max = high === "" ? UNBOUNDED : this.#count(high);
    if (max < min) throw source.error("the least count is above the greatest", source.position - start);
    return { min, max };
  }

  #count(digits: string): number {
    const count = Number(digits);
    if (count >= UNBOUNDED || digits.length > MAX_INTEGER_DIGITS)
      throw invalidPattern(this.#source.pattern, `repeat count ${digits} is too large`, null);
    return count;
  }

  /** Anything in parentheses; undefined for a comment. The opening parenthesis was just consumed. */
  #group(verbose: boolean, nesting: number, flagsAllowed: boolean): Ast | "global-flags" | undefined {
    const source = this.#source;
    const start = source.position - 1;
    if (!source.match("?")) return this.#capture(undefined, verbose, nesting, start);

    const kind = source.get();
    switch (kind) {
      case null:
        throw source.error("the pattern ends after (?");
      case "P":
        return this.#pythonGroup(verbose, nesting, start);
      case ":":
        return this.#plainGroup({ add: 0, remove: 0 }, verbose, nesting, start);
      case "#":
        return this.#comment(start);
      case "=":
      case "!":
        return this.#look(false, kind === "!", verbose, nesting, start);
      case "<":
        return this.#lookbehind(verbose, nesting, start);
      case "(":
        return this.#conditional(verbose, nesting, start);
      case ">": {
        const body = this.#groupBody(verbose, nesting, start);
        return { op: "atomic", body };
      }
    }
    if (!isFlagLetter(kind) && kind !== "-")
      throw source.error(`(?${kind} is not a kind of group`, codePointLength(kind) + 1);
    const flags = parseFlags(this.#state, kind);
    if (flags !== "global") return this.#plainGroup(flags, verbose, nesting, start);
    if (!flagsAllowed)
      throw source.error(
        "global flags must stand at the start of the pattern; use (?i:...) for a part",
        source.position - start,
      );
    return "global-flags";
  }

  /** Content of a group and its closing parenthesis. */
  #groupBody(verbose: boolean, nesting: number, start: number): Sequence {
    const body = this.alternation(verbose, nesting + 1);
    this.#close(start);
    return body;
  }

  #close(start: number): void {
    if (!this.#source.match(")"))
      throw this.#source.error("the group has no closing )", this.#source.position - start);
  }

  #capture(name: string | undefined, verbose: boolean, nesting: number, start: number): Ast {
    const index = this.#state.openGroup(name);
    const body = this.#groupBody(verbose, nesting, start);
    this.#state.closeGroup(index, body);
    return { op: "group", index, addFlags: 0, deleteFlags: 0, body };
  }

  #plainGroup(flags: InlineFlags, verbose: boolean, nesting: number, start: number): Ast {
    const innerVerbose = (verbose || (flags.add & Flag.VERBOSE) !== 0) && !(flags.remove & Flag.VERBOSE);
    const body = this.#groupBody(innerVerbose, nesting, start);
    return { op: "group", index: undefined, addFlags: flags.add, deleteFlags: flags.remove, body };
  }

  /** `(?P<name>...)` and `(?P=name)`. */
  #pythonGroup(verbose: boolean, nesting: number, start: number): Ast {
    const source = this.#source;
    const state = this.#state;
    if (source.match("<")) {
      const name = source.getUntil(">", "group name");
      state.checkGroupName(name);
      return this.#capture(name, verbose, nesting, start);
    }
    if (!source.match("=")) {
      const kind = source.get();
      if (kind === null) throw source.error("the pattern ends after (?P");
      throw source.error(`(?P${kind} is not a kind of group`, codePointLength(kind) + 2);
    }
    const name = source.getUntil(")", "group name");
    state.checkGroupName(name);
    const group = state.groupNames.get(name);
    const back = codePointLength(name) + 1;
    if (group === undefined) throw source.error(`no group is named "${name}"`, back);
    if (!state.isClosed(group)) throw state.openGroupError(back);
    state.checkLookbehindReference(group);
    return { op: "backreference", group };
  }

  #comment(start: number): undefined {
    const source = this.#source;
    for (;;) {
      if (source.next === null) throw source.error("the comment has no closing )", source.position - start);
      if (source.get() === ")") return undefined;
    }
  }

  #look(behind: boolean, negate: boolean, verbose: boolean, nesting: number, start: number): Ast {
    const body = this.#groupBody(verbose, nesting, start);
    return { op: "look", behind, negate, body };
  }

  #lookbehind(verbose: boolean, nesting: number, start: number): Ast {
    const source = this.#source;
    const state = this.#state;
    const kind = source.get();
    if (kind === null) throw source.error("the pattern ends after (?<");
    if (kind !== "=" && kind !== "!")
      throw source.error(
        `(?<${kind} is not a kind of group; a named group is (?P<name>...)`,
        codePointLength(kind) + 2,
      );
    const outer = state.lookbehindGroups;
    state.lookbehindGroups ??= state.groups;
    const body = this.alternation(verbose, nesting + 1);
    state.lookbehindGroups = outer;
    this.#close(start);
    return { op: "look", behind: true, negate: kind === "!", body };
  }

  /** `(?(group)yes|no)`. */
  #conditional(verbose: boolean, nesting: number, start: number): Ast {
    const source = this.#source;
    const name = source.getUntil(")", "group name");
    const group = this.#conditionalGroup(name);
    this.#state.checkLookbehindReference(group);
    const yes = this.#sequence(verbose, nesting + 1);
    let no: Sequence | undefined;
    if (source.match("|")) {
      no = this.#sequence(verbose, nesting + 1);
      if (source.next === "|") throw source.error("a conditional has at most two branches");
    }
    this.#close(start);
    return { op: "conditional", group, yes, no };
  }

  #conditionalGroup(name: string): number {
    const source = this.#source;
    const state = this.#state;
    const back = codePointLength(name) + 1;
    if (isIdentifier(name)) {
      const group = state.groupNames.get(name);
      if (group === undefined) throw source.error(`no group is named "${name}"`, back);
      return group;
    }
    const group = parseInteger(name);
    if (group === undefined || group < 0)
      throw source.error(`"${name}" is neither the name nor the number of a group`, back);
    if (group === 0) throw source.error("a conditional cannot refer to group 0", back);
    if (group >= MAX_GROUPS) throw source.error(`reference to group ${name}, which does not exist`, back);
    const position = source.position - back;
    if (!state.conditionalReferences.has(group)) state.conditionalReferences.set(group, position);
    if (!/^[0-9]+$/.test(name))
      state.warn(
        "DeprecationWarning",
        `bad character in group name ${pythonQuote(name)} at position ${position}`,
      );
    return group;
  }
}

/** A group that only brackets: `(?:...)` without flags. */
const isPlainGroup = (node: Ast): node is Ast & { op: "group" } =>
  node.op === "group" && node.index === undefined && !node.addFlags && !node.deleteFlags;

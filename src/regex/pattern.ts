import { isGraftError, RegexError } from "../errors.ts";
import type { ParsedPattern, PatternWarning } from "./ast.ts";
import { runBacktracker } from "./backtrack.ts";
import { type Backtracker, compileBacktracker } from "./backtrack-nodes.ts";
import { type Extent, LazyDfa, type Progress } from "./dfa.ts";
import { lower, type Part } from "./lower.ts";
import { parse } from "./parser.ts";
import { runProgram, type Spans } from "./pike.ts";
import { compileProgram, isRegular, type Program } from "./program.ts";
import { excerpt } from "./tokenizer.ts";

/** A match of a pattern in a text. Indexes are UTF-16, as in JavaScript strings. */
export type Match = {
  readonly start: number;
  /** After the last character. */
  readonly end: number;
  /** The whole match, then each group; undefined for groups that took no part. */
  readonly groups: readonly (string | undefined)[];
  /** Groups that have a name. */
  readonly named: Readonly<Record<string, string | undefined>>;
};

/** A compiled pattern, with Python 3.11's semantics for `str` patterns. */
export type Pattern = {
  readonly pattern: string;
  /** Capture groups, the whole match not counted. */
  readonly groupCount: number;
  /** What Python would warn of, e.g. `FutureWarning: Possible nested set at position 1`. */
  readonly warnings: readonly PatternWarning[];
  /**
   * The match of the whole text, as `re.fullmatch`; null if there is none.
   * @throws RegexError "regex-too-slow" if backtracking exceeds its bound, possible only with backreferences,
   * lookaround, conditionals, atomic or possessive parts, or very large repeat counts.
   */
  fullmatch(text: string): Match | null;
  /** The match at the start of the text, as `re.match`. @throws as `fullmatch`. */
  match(text: string): Match | null;
  /** The first match in the text, as `re.search`. @throws as `fullmatch`. */
  search(text: string): Match | null;
  /**
   * How far a text that does not match as a whole gets: for `.*\.layers\.[45]` and "model.layers.3" it is "model.layers."
   * that uses up most of the pattern.
   * @returns undefined for patterns that need backtracking, of which this isn't known.
   */
  progress(text: string): Progress | undefined;
};

/** Longer patterns are refused: memory and time would grow with them. A name has some 40 characters. */
const MAX_LENGTH = 500_000;
/** Patterns kept compiled. */
const CACHE_SIZE = 256;
const cache = new Map<string, Pattern>();

/**
 * Compiles a Python regular expression; recently used patterns come from a cache.
 * @throws RegexError "invalid-regex" where Python 3.11 rejects the pattern; `details.position` is Python's position in
 * code points, null where Python reports none. Differs from Python only in `\N{...}`, which knows common names only.
 * @throws RegexError "regex-too-large" beyond 500,000 characters (UTF-16), which Python would accept.
 */
export function compile(pattern: string): Pattern {
  if (pattern.length > MAX_LENGTH)
    throw new RegexError(
      `regular expression ${excerpt(pattern, 0)}: at most ${MAX_LENGTH.toLocaleString("en")} characters are ` +
        "accepted. Shorten it, or list module names instead of joining them with |.",
      { code: "regex-too-large", details: { length: pattern.length, limit: MAX_LENGTH } },
    );
  const compiled = cache.get(pattern) ?? new CompiledPattern(pattern);
  cache.delete(pattern);
  cache.set(pattern, compiled);
  if (cache.size > CACHE_SIZE) cache.delete(cache.keys().next().value!);
  return compiled;
}

/**
 * Three engines share the work. A lazily built DFA decides whether there is a match at all; if the pattern isn't
 * regular it runs on a superset, to reject quickly. The backtracker then finds the groups. For regular patterns it may
 * take only a number of steps proportional to the text; beyond that the linear-time simulation takes over. For others
 * it may take MAX_STEPS.
 */
class CompiledPattern implements Pattern {
  readonly pattern: string;
  readonly groupCount: number;
  readonly warnings: readonly PatternWarning[];
  readonly #names: ParsedPattern["groupNames"];
  readonly #parts: readonly Part[];
  /** The pattern as an automaton, if it is regular and not too large. */
  readonly #program: Program | undefined;
  /** An automaton that matches at least what the pattern matches. */
  readonly #superset: Program | undefined;
  readonly #automata = new Map<Extent, LazyDfa>();
  #matcher: Backtracker | undefined;

  constructor(pattern: string) {
    const parsed = parse(pattern);
    this.pattern = pattern;
    this.groupCount = parsed.groupCount;
    this.warnings = parsed.warnings;
    this.#names = parsed.groupNames;
    this.#parts = lower(pattern, parsed);
    this.#program = isRegular(this.#parts) ? compileProgram(this.#parts) : undefined;
    this.#superset = this.#program ?? compileProgram(this.#parts, { relaxed: true });
  }

  fullmatch(text: string): Match | null {
    return this.#find(text, "full");
  }

  match(text: string): Match | null {
    return this.#find(text, "start");
  }

  search(text: string): Match | null {
    return this.#find(text, "anywhere");
  }

  progress(text: string): Progress | undefined {
    const program = this.#program;
    return program && text.length <= program.maxTextLength
      ? this.#automaton(program, "full").progress(text)
      : undefined;
  }

  #find(text: string, extent: Extent): Match | null {
    const superset = this.#superset;
    if (superset && text.length <= superset.maxTextLength && !this.#automaton(superset, extent).test(text))
      return null;
    const program = this.#program;
    if (program && text.length <= program.maxTextLength)
      return new FoundMatch(text, this.#names, () => this.#spansOf(program, text, extent));
    const spans = runBacktracker(this.#backtracker, codesOf(text), extent);
    return spans ? new FoundMatch(text, this.#names, () => spans) : null;
  }

  #automaton(program: Program, extent: Extent): LazyDfa {
    let automaton = this.#automata.get(extent);
    if (!automaton) {
      automaton = new LazyDfa(program, extent);
      this.#automata.set(extent, automaton);
    }
    return automaton;
  }

  get #backtracker(): Backtracker {
    this.#matcher ??= compileBacktracker(this.#parts, this.groupCount);
    return this.#matcher;
  }

  /** Groups of a match known to exist. */
  #spansOf(program: Program, text: string, extent: Extent): Spans {
    const codes = codesOf(text);
    if (extent === "full" && this.groupCount === 0) return [0, codes.length];
    try {
      return runBacktracker(this.#backtracker, codes, extent, stepsWorthTrying(codes.length))!;
    } catch (error) {
      if (!isGraftError(error) || error.code !== "regex-too-slow") throw error;
      return runProgram(program, codes, extent, this.groupCount)!;
    }
  }
}

/** Up to here backtracking beats the simulation, which takes a step per instruction and character. */
const stepsWorthTrying = (length: number): number => 500 + 20 * length;

/** Code points of a text; a lone surrogate counts as one, as in Python. */
function codesOf(text: string): number[] {
  const codes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i)!;
    if (code > 0xffff) i++;
    codes.push(code);
  }
  return codes;
}

/** A match whose ends and groups are worked out when first asked for; many callers only ask whether there is one. */
class FoundMatch implements Match {
  readonly #text: string;
  readonly #names: ParsedPattern["groupNames"];
  readonly #find: () => Spans;
  #spans: Spans | undefined;
  #groups: (string | undefined)[] | undefined;

  constructor(text: string, names: ParsedPattern["groupNames"], find: () => Spans) {
    this.#text = text;
    this.#names = names;
    this.#find = find;
  }

  get start(): number {
    return this.#resolved[0]!;
  }

  get end(): number {
    return this.#resolved[1]!;
  }

  get groups(): (string | undefined)[] {
    if (this.#groups) return this.#groups;
    const spans = this.#resolved;
    const groups: (string | undefined)[] = [];
    for (let i = 0; i < spans.length; i += 2)
      groups.push(spans[i]! < 0 ? undefined : this.#text.slice(spans[i], spans[i + 1]));
    this.#groups = groups;
    return groups;
  }

  get named(): Record<string, string | undefined> {
    const { groups } = this;
    return Object.fromEntries(Array.from(this.#names, ([name, group]) => [name, groups[group]]));
  }

  /** Spans in UTF-16 indexes. */
  get #resolved(): Spans {
    this.#spans ??= utf16Spans(this.#text, this.#find());
    return this.#spans;
  }
}

function utf16Spans(text: string, spans: Spans): Spans {
  if (!/[\ud800-\udbff][\udc00-\udfff]/.test(text)) return spans;
  const indexes: number[] = [];
  let index = 0;
  for (const character of text) {
    indexes.push(index);
    index += character.length;
  }
  indexes.push(index);
  return spans.map((position) => (position < 0 ? position : indexes[position]!));
}

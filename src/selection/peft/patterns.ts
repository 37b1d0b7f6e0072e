import { RegexError } from "../../errors.ts";
import { compile, type Match, type Pattern } from "../../regex/index.ts";
import { failure, type Warnings } from "../failure.ts";
import { compareCodePoints } from "../python.ts";

/** Word characters, dashes and dots: as a regex it has a fixed length, and only its dots are not literal. */
const simple = /^[\w.-]+$/;

/** Names of PyTorch modules that hold surrogates or newlines take the slow way. */
export const isPlainName = (name: string): boolean => !/[\n\ud800-\udfff]/.test(name);

/** Can `source` be matched by `simpleAt` instead of a regex? */
export const isSimple = (source: string): boolean => simple.test(source);

/** Does the simple regex `source` match `text` at `start`? A dot stands for any character but a newline. */
export function simpleAt(source: string, text: string, start: number): boolean {
  if (start < 0 || start + source.length > text.length) return false;
  for (let i = 0; i < source.length; i++) {
    const wanted = source.charCodeAt(i);
    const got = text.charCodeAt(start + i);
    if (wanted === 46 ? got === 10 : wanted !== got) return false;
  }
  return true;
}

/**
 * Compiles each pattern of one selection once, and only when it is first used: as in PEFT, a broken pattern that no
 * module ever reaches goes unnoticed.
 */
export class Patterns {
  readonly #compiled = new Map<string, Pattern>();
  readonly #warnings: Warnings;

  constructor(warnings: Warnings) {
    this.#warnings = warnings;
  }

  /**
   * @param option the option that the pattern comes from, for the message.
   * @throws SelectionError `invalid-regex` (Python: re.error) with the position in `source`.
   */
  get(source: string, option: string): Pattern {
    let pattern = this.#compiled.get(source);
    if (pattern === undefined) {
      pattern = compileFor(source, option);
      this.#compiled.set(source, pattern);
      for (const { category, message } of pattern.warnings)
        this.#warnings.add("other", `${option}: ${JSON.stringify(source)}: ${message}`, category);
    }
    return pattern;
  }
}

function compileFor(source: string, option: string): Pattern {
  try {
    return compile(source);
  } catch (error) {
    if (!(error instanceof RegexError)) throw error;
    const { code, message, details } = error;
    if (code !== "invalid-regex")
      throw new RegexError(`${option}: ${message}`, { code, details: { ...details, option } });
    throw failure("inject", "re.error", "invalid-regex", `${option}: ${message}`, {
      ...details,
      option,
      pattern: source,
    });
  }
}

/**
 * Does `entry`, a regex inserted as it is, match a dotted part of `name`: the module itself or one that contains it?
 * PEFT: `re.match(rf"(^|.*\.){entry}($|\..*)", name)`.
 */
export function matchesPart(patterns: Patterns, entry: string, name: string, option: string): boolean {
  if (isSimple(entry) && isPlainName(name)) {
    let start = 0;
    while (true) {
      const end = start + entry.length;
      if (end > name.length) return false;
      if ((end === name.length || name.charCodeAt(end) === 46) && simpleAt(entry, name, start)) return true;
      const dot = name.indexOf(".", start);
      if (dot === -1) return false;
      start = dot + 1;
    }
  }
  return patterns.get(`(^|.*\\.)${entry}($|\\..*)`, option).match(name) !== null;
}

/** Does `key`, a regex for a dotted tail, match `name`? PEFT: `re.match(rf"(.*\.)?({key})$", name)`. */
export function matchesTail(patterns: Patterns, key: string, name: string, option: string): boolean {
  if (isSimple(key) && isPlainName(name)) {
    const start = name.length - key.length;
    return (start === 0 || name.charCodeAt(start - 1) === 46) && simpleAt(key, name, start);
  }
  return patterns.get(`(.*\\.)?(${key})$`, option).match(name) !== null;
}

/** Looks ranks or alphas up by pattern: the first key, in order, that matches a tail of the name. */
export class PatternLookup {
  readonly #patterns: Patterns;
  readonly #table: ReadonlyMap<string, number> | null;
  readonly #option: string;
  readonly #used = new Set<string>();

  constructor(patterns: Patterns, table: ReadonlyMap<string, number> | null, option: string) {
    this.#patterns = patterns;
    this.#table = table;
    this.#option = option;
  }

  /** The first key that matches a tail of `name`; null if none does. */
  keyFor(name: string): string | null {
    if (this.#table === null)
      throw failure(
        "inject",
        "AttributeError",
        "python-internal",
        `${this.#option} must be a table, not null.`,
      );
    for (const key of this.#table.keys())
      if (matchesTail(this.#patterns, key, name, this.#option)) return key;
    return null;
  }

  /** The value for `name`; PEFT looks the name itself up where no pattern matches, then takes `fallback`. */
  valueFor(name: string, fallback: number): number {
    if (this.#table !== null && this.#table.size === 0) return fallback;
    const key = this.keyFor(name);
    if (key !== null) this.#used.add(key);
    return this.#table!.get(key ?? name) ?? fallback;
  }

  /** Keys that gave a value so far. */
  get used(): ReadonlySet<string> {
    return this.#used;
  }

  /** Keys that match none of `names`, sorted. */
  unmatched(names: readonly string[]): string[] {
    const keys = [...(this.#table?.keys() ?? [])];
    return keys
      .filter((key) => !names.some((name) => matchesTail(this.#patterns, key, name, this.#option)))
      .sort(compareCodePoints);
  }
}

export type { Match, Pattern };

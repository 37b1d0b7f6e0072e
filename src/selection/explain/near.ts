import { nearest, RegexError } from "../../errors.ts";
import { compile, type Pattern } from "../../regex/index.ts";
import { leafOf } from "../python.ts";
import type { NearMiss } from "./explanation.ts";

/** Entries whose spelling is compared with names. */
const spellingLimit = 100;

/** Finds the entry of a list that comes nearest to a name which none matches. */
export class NearestEntry {
  /** The first entry with this tail of parts. */
  readonly #byTail = new Map<string, string>();
  readonly #byLeaf = new Map<string, string>();
  readonly #spelling = new Map<string, string | undefined>();

  constructor(entries: Iterable<string>) {
    for (const entry of entries) {
      for (let dot = entry.indexOf("."); dot !== -1; dot = entry.indexOf(".", dot + 1)) {
        const tail = entry.slice(dot + 1);
        if (!this.#byTail.has(tail)) this.#byTail.set(tail, entry);
      }
      const leaf = leafOf(entry);
      if (!this.#byLeaf.has(leaf) && this.#byLeaf.size < spellingLimit && leaf.length <= spellingLimit)
        this.#byLeaf.set(leaf, entry);
    }
  }

  /** An entry that ends in the same parts, the more the better; else one spelt nearly as the last part. */
  find(name: string): Extract<NearMiss, { kind: "tail" | "spelling" }> | undefined {
    if (this.#byTail.has(leafOf(name)))
      for (let start = 0; ; start = name.indexOf(".", start) + 1) {
        const tail = name.slice(start);
        const entry = this.#byTail.get(tail);
        if (entry !== undefined) return { kind: "tail", entry, parts: tail.split(".").length };
      }
    const leaf = leafOf(name);
    let entry = this.#spelling.get(leaf);
    if (entry === undefined && !this.#spelling.has(leaf)) {
      const [close] = leaf.length > spellingLimit ? [] : nearest(leaf, this.#byLeaf.keys(), 1);
      entry = close === undefined ? undefined : this.#byLeaf.get(close);
      this.#spelling.set(leaf, entry);
    }
    return entry === undefined ? undefined : { kind: "spelling", entry };
  }
}

/** Longer regexes are not tried in other forms. */
export const longestTried = 10_000;

/** Compiles `source` with something in front or behind; undefined where that is no valid pattern, e.g. for `(?i)x`. */
export function compileWith(before: string, source: string, after = ""): Pattern | undefined {
  try {
    return compile(`${before}(?:${source})${after}`);
  } catch (error) {
    if (error instanceof RegexError) return undefined;
    throw error;
  }
}

/** Tells how near names come to a regex that does not match them. */
export class NearRegex {
  readonly #pattern: Pattern;
  readonly #anywhere: Pattern | undefined;

  constructor(source: string) {
    this.#pattern = compile(source);
    this.#anywhere =
      source.startsWith(".*") || source.length > longestTried ? undefined : compileWith(".*", source);
  }

  measure(name: string): Extract<NearMiss, { kind: "regex" }> {
    const progress = this.#pattern.progress(name);
    return {
      kind: "regex",
      ...(progress === undefined ? {} : { reached: name.slice(0, progress.deepest) }),
      before: (this.#anywhere?.fullmatch(name) ?? null) !== null,
      after: this.#pattern.match(name) !== null,
    };
  }
}

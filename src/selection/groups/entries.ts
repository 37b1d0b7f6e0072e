import { leafOf } from "../python.ts";
import { compileEntry, type Entry, type NameTest } from "./entry.ts";
import type { Report } from "./layers.ts";
import { quote } from "./problems.ts";

/** An entry and where it stands. */
export type PlacedEntry = Entry & {
  readonly option: "targetModules" | "excludeModules";
  /** Of the whole selection, not of the group. */
  readonly isShared?: boolean;
};

/** Tells which entries match a module. */
export class EntryTable {
  readonly #entries: readonly PlacedEntry[];
  /** Names to the entries of that name. */
  readonly #names = new Map<string, number[]>();
  /** Last parts of these names. */
  readonly #leaves = new Set<string>();
  readonly #tests: (readonly [index: number, test: NameTest])[] = [];
  readonly #linear: readonly number[];
  readonly #isLinear: ReadonlySet<string>;

  /** @param linear names that all-linear stands for. */
  constructor(entries: readonly PlacedEntry[], linear: ReadonlySet<string>, { subject, problems }: Report) {
    this.#entries = entries;
    this.#isLinear = linear;
    this.#linear = entries.flatMap(({ kind }, index) => (kind === "all-linear" ? [index] : []));
    entries.forEach((entry, index) => {
      const { kind, body, text, option } = entry;
      if (kind === "all-linear") return;
      const test = compileEntry(entry);
      if (typeof test !== "function")
        problems.add(test.code, `${subject}${option}: the entry ${quote(text)} ${ended(test.message)}`, {
          entry: text,
          position: test.position ?? null,
        });
      else if (kind === "name") {
        this.#names.set(body, [...(this.#names.get(body) ?? []), index]);
        this.#leaves.add(leafOf(body));
      } else this.#tests.push([index, test]);
    });
  }

  /** Positions of the entries that match a module. */
  matching(name: string): number[] {
    const found: number[] = [];
    if (this.#linear.length > 0 && this.#isLinear.has(name)) found.push(...this.#linear);
    if (this.#leaves.has(leafOf(name)))
      for (let start = 0; start !== -1; ) {
        const named = this.#names.get(name.slice(start));
        if (named !== undefined) found.push(...named);
        const dot = name.indexOf(".", start);
        start = dot === -1 ? -1 : dot + 1;
      }
    for (const [index, test] of this.#tests) if (test(name)) found.push(index);
    return found;
  }

  get entries(): readonly PlacedEntry[] {
    return this.#entries;
  }
}

const ended = (message: string): string => (message.endsWith(".") ? message : `${message}.`);

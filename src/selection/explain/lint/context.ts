import { GraftError, nearest } from "../../../errors.ts";
import { Warnings } from "../../failure.ts";
import { makeMatcher } from "../../peft/match.ts";
import type { SelectionConfig } from "../../peft/options.ts";
import { type Preparation, prepare } from "../../peft/prepare.ts";
import { selectTargets } from "../../peft/select.ts";
import { partsOf, type Selection } from "../../peft/selection.ts";
import { leafOf } from "../../python.ts";
import type { Structure } from "../../structure/index.ts";
import { structureOf } from "../../structure/index.ts";
import type { ModuleTree } from "../../tree.ts";
import { effectiveTree } from "../effective-tree.ts";

/** Something in a configuration that was probably not meant, or is worth knowing. */
export type LintWarning = {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
};

/** What the checks look at, and where they put what they find. */
export class LintContext {
  /** With the names that are matched: those of the deeper model where layers are replicated. */
  readonly tree: ModuleTree;
  readonly preparation: Preparation;
  /** Undefined where PEFT fails. */
  readonly selection: Selection | undefined;
  /** Names of all modules. */
  readonly names: readonly string[];
  /** Names of modules that are matched. */
  readonly targets: readonly string[];
  readonly warnings: LintWarning[] = [];
  readonly #leaves = new Map<string, string[]>();
  #layerLists: Map<string, number[]> | undefined;

  constructor(tree: ModuleTree, preparation: Preparation, selection: Selection | undefined) {
    this.tree = effectiveTree(tree, preparation);
    this.preparation = preparation;
    this.selection = selection;
    this.names = preparation.modules.names;
    this.targets = selection?.targets.map(({ name }) => name) ?? matchedNames(preparation);
  }

  get structure(): Structure {
    return structureOf(this.tree);
  }

  warn(code: string, message: string, details: Record<string, unknown> = {}): void {
    this.warnings.push({ code, message, details });
  }

  /** The last parts of all names, and some names that end in each. */
  get leaves(): ReadonlyMap<string, readonly string[]> {
    if (this.#leaves.size === 0)
      for (const name of this.names) {
        const leaf = leafOf(name);
        const known = this.#leaves.get(leaf);
        if (known === undefined) this.#leaves.set(leaf, [name]);
        else if (known.length < mostCompared) known.push(name);
      }
    return this.#leaves;
  }

  /**
   * Paths of the outermost numbered lists, and the numbers of their items: nearly the stacks of `structure`, found in a
   * fraction of the time.
   */
  get layerLists(): ReadonlyMap<string, readonly number[]> {
    if (this.#layerLists === undefined) {
      this.#layerLists = new Map();
      for (const name of this.names) {
        if (!isDigit(name.charCodeAt(name.length - 1))) continue;
        const start = numberAt(name);
        if (start === -1 || name.includes(".", start)) continue;
        const place = firstNumber(name)!;
        const known = this.#layerLists.get(place.path);
        if (known === undefined) this.#layerLists.set(place.path, [place.index]);
        else known.push(place.index);
      }
    }
    return this.#layerLists;
  }

  /** Ends of names, of as many parts as `entry` has, that are spelt nearly as it is. */
  nearestTails(entry: string, limit = 1): string[] {
    if (entry.length > longestCompared) return [];
    const parts = entry.split(".").length;
    const leaf = leafOf(entry);
    const leaves = nearest(leaf, this.leaves.keys(), 2);
    if (parts === 1) return leaves.filter((name) => name !== entry).slice(0, limit);
    const tails = new Set<string>();
    for (const close of leaves) for (const name of this.leaves.get(close)!) tails.add(tailOf(name, parts));
    return nearest(entry, tails, limit).filter((name) => name !== entry);
  }
}

/** Where the first part of a name that is a number begins; -1 if there is none. */
export function numberAt(name: string): number {
  for (let start = 0; start !== -1; ) {
    let end = start;
    while (isDigit(name.charCodeAt(end))) end++;
    if (end > start && (end === name.length || name.charCodeAt(end) === dotCode)) return start;
    const dot = name.indexOf(".", end);
    start = dot === -1 ? -1 : dot + 1;
  }
  return -1;
}

const dotCode = 46;
const isDigit = (code: number): boolean => code >= 48 && code <= 57;

/** The outermost numbered list that a name is in, and the number; whether the name ends there. */
export function firstNumber(name: string): { path: string; index: number; isLast: boolean } | undefined {
  const start = numberAt(name);
  if (start === -1) return undefined;
  const dot = name.indexOf(".", start);
  const index = Number(dot === -1 ? name.slice(start) : name.slice(start, dot));
  return { path: name.slice(0, Math.max(0, start - 1)), index, isLast: dot === -1 };
}

/** The last parts of a name, one more where they would begin with a number. */
function tailOf(name: string, parts: number): string {
  const all = name.split(".");
  const start = all.length - parts;
  return all.slice(start > 0 && /^[0-9]/.test(all[start]!) ? start - 1 : Math.max(0, start)).join(".");
}

const longestCompared = 200;
const mostCompared = 300;

function matchedNames({ config, patterns, modules }: Preparation): string[] {
  const match = makeMatcher(config, patterns);
  try {
    return modules.names.filter((name) => name !== "" && match(name).status === "matched");
  } catch (error) {
    if (error instanceof GraftError) return [];
    throw error;
  }
}

/** @returns undefined where PEFT refuses the configuration before it matches the first name. */
export function contextOf(
  tree: ModuleTree,
  config: SelectionConfig,
  known: Selection | undefined,
): LintContext | undefined {
  try {
    const selection = known ?? selectOrUndefined(tree, config);
    const preparation =
      selection === undefined ? prepare(tree, config, new Warnings()) : partsOf(selection).preparation;
    return new LintContext(tree, preparation, selection);
  } catch (error) {
    if (error instanceof GraftError) return undefined;
    throw error;
  }
}

function selectOrUndefined(tree: ModuleTree, config: SelectionConfig): Selection | undefined {
  try {
    return selectTargets(tree, config);
  } catch (error) {
    if (error instanceof GraftError) return undefined;
    throw error;
  }
}

/** ` (nearest: "q_proj")`, or nothing. */
export const nearestNote = (names: readonly string[]): string =>
  names.length === 0 ? "" : ` (nearest: ${names.map((name) => JSON.stringify(name)).join(", ")})`;

/** `24 modules`, `1 module`. */
export const countOf = (count: number, one = "module", many = `${one}s`): string =>
  `${count} ${count === 1 ? one : many}`;

import { Flag } from "./ast.ts";
import { anySet, type CharSet } from "./charset.ts";
import type { Part, Position } from "./lower.ts";

/**
 * Instruction of a nondeterministic automaton. Going on means the next instruction, unless targets are named.
 * `split` prefers its first target. `loop` is a split for a repeat whose body can be empty: Python starts no iteration
 * where the iteration before it started, so threads carry one bit per enclosing loop, "began an iteration here".
 */
export type Instruction =
  | { readonly op: "char"; readonly set: number }
  | { readonly op: "at"; readonly position: Position }
  | { readonly op: "mark"; readonly slot: number }
  | { readonly op: "jump"; readonly to: number }
  | { readonly op: "split"; readonly first: number; readonly second: number }
  | {
      readonly op: "loop";
      readonly body: number;
      readonly exit: number;
      readonly greedy: boolean;
      readonly bit: number;
    }
  /** End of a loop: takes its bit back. */
  | { readonly op: "leave"; readonly bit: number }
  | { readonly op: "match" };

export type Program = {
  readonly code: readonly Instruction[];
  readonly sets: readonly CharSet[];
  /** Nesting depth of `loop` instructions: bits that a thread carries. */
  readonly loopDepth: number;
  /** Longest text for which the program stands for the pattern; huge repeat counts are taken as unbounded. */
  readonly maxTextLength: number;
};

export type ProgramOptions = {
  /** Accept a superset: conditions that aren't regular hold, counts are bounds only as far as they're small. */
  readonly relaxed?: boolean;
};

/** Above this, programs take more memory and time than a pattern deserves; a backtracking matcher takes over. */
const MAX_INSTRUCTIONS = 10_000;
/** Optional iterations beyond this count as unbounded, for texts shorter than this. */
const HUGE = 100_000;
/** Loops nested deeper than this share bits badly: no 32-bit mask holds them. */
const MAX_LOOP_DEPTH = 20;

/** Whether an automaton can express the parts exactly. */
export function isRegular(parts: readonly Part[]): boolean {
  return parts.every((part) => {
    switch (part.op) {
      case "char":
      case "at":
        return true;
      case "capture":
        return isRegular(part.body);
      case "branch":
        return part.branches.every(isRegular);
      case "repeat":
        return part.mode !== "possessive" && isRegular(part.body);
      default:
        return false;
    }
  });
}

/** Parts -> automaton; undefined if it would be too large. Parts must be regular unless `relaxed`. */
export function compileProgram(
  parts: readonly Part[],
  { relaxed = false }: ProgramOptions = {},
): Program | undefined {
  const compiler = new ProgramCompiler(relaxed);
  compiler.sequence(parts, 0);
  return compiler.finish();
}

class ProgramCompiler {
  readonly #relaxed: boolean;
  readonly #code: Instruction[] = [];
  readonly #sets = new Map<CharSet, number>();
  #loopDepth = 0;
  #maxTextLength = Number.POSITIVE_INFINITY;

  constructor(relaxed: boolean) {
    this.#relaxed = relaxed;
  }

  finish(): Program | undefined {
    this.#code.push({ op: "match" });
    if (this.#tooLarge || this.#loopDepth > MAX_LOOP_DEPTH) return undefined;
    return {
      code: this.#code,
      sets: [...this.#sets.keys()],
      loopDepth: this.#loopDepth,
      maxTextLength: this.#maxTextLength,
    };
  }

  get #tooLarge(): boolean {
    return this.#code.length > MAX_INSTRUCTIONS;
  }

  /** `depth`: enclosing loops whose body can be empty. */
  sequence(parts: readonly Part[], depth: number): void {
    for (const part of parts) this.#part(part, depth);
  }

  #part(part: Part, depth: number): void {
    if (this.#tooLarge) return;
    switch (part.op) {
      case "char":
        this.#code.push({ op: "char", set: this.#setIndex(part.set) });
        return;
      case "at":
        this.#code.push({ op: "at", position: part.position });
        return;
      case "capture":
        this.#mark(part.group * 2);
        this.sequence(part.body, depth);
        this.#mark(part.group * 2 + 1);
        return;
      case "branch":
        this.#alternatives(part.branches, depth);
        return;
      case "repeat":
        this.#repeat(part, depth);
        return;
      case "atomic":
        this.sequence(part.body, depth);
        return;
      case "look":
        return;
      case "backreference":
        this.#unbounded(true, depth, false, () => {
          this.#code.push({ op: "char", set: this.#setIndex(anything) });
        });
        return;
      case "conditional":
        this.#alternatives([part.yes, part.no], depth);
        return;
    }
  }

  /** Captures play no part in a relaxed program. */
  #mark(slot: number): void {
    if (!this.#relaxed) this.#code.push({ op: "mark", slot });
  }

  #setIndex(set: CharSet): number {
    const known = this.#sets.get(set);
    if (known !== undefined) return known;
    this.#sets.set(set, this.#sets.size);
    return this.#sets.size - 1;
  }

  /** Takes a place whose targets are filled in later. */
  #reserve(): number {
    return this.#code.push({ op: "match" }) - 1;
  }

  #alternatives(branches: readonly (readonly Part[])[], depth: number): void {
    const ends: number[] = [];
    branches.forEach((branch, i) => {
      if (i === branches.length - 1) {
        this.sequence(branch, depth);
        return;
      }
      const split = this.#reserve();
      this.sequence(branch, depth);
      ends.push(this.#reserve());
      this.#code[split] = { op: "split", first: split + 1, second: this.#code.length };
    });
    for (const end of ends) this.#code[end] = { op: "jump", to: this.#code.length };
  }

  /** x{min,max}: min copies, then either a loop or nested optional copies. */
  #repeat(part: Part & { op: "repeat" }, depth: number): void {
    const greedy = part.mode !== "lazy";
    const nullable = canBeEmpty(part.body);
    const emit = (inner: number) => this.sequence(part.body, inner);
    let { min, max } = part;
    if (this.#relaxed && (min > RELAXED_COUNT || (max > RELAXED_COUNT && max !== Number.POSITIVE_INFINITY))) {
      min = Math.min(min, 1);
      max = Number.POSITIVE_INFINITY;
    }
    if (max - min >= HUGE && max !== Number.POSITIVE_INFINITY) {
      max = Number.POSITIVE_INFINITY;
      this.#maxTextLength = HUGE - 2;
    }
    if (max === Number.POSITIVE_INFINITY && min > 0 && !nullable) {
      // xx*: the last obligatory copy is the body of the loop.
      this.#copies(min - 1, () => emit(depth));
      const start = this.#code.length;
      emit(depth);
      const end = this.#code.length + 1;
      this.#code.push(
        greedy ? { op: "split", first: start, second: end } : { op: "split", first: end, second: start },
      );
      return;
    }
    this.#copies(min, () => emit(depth));
    if (max === Number.POSITIVE_INFINITY) this.#unbounded(greedy, depth, nullable, emit);
    else this.#optional(max - min, greedy, depth, nullable, emit);
  }

  #copies(count: number, emit: () => void): void {
    for (let i = 0; i < count && !this.#tooLarge; i++) {
      const before = this.#code.length;
      emit();
      if (this.#code.length === before) return;
    }
  }

  #unbounded(greedy: boolean, depth: number, nullable: boolean, emit: (depth: number) => void): void {
    const head = this.#reserve();
    emit(nullable ? depth + 1 : depth);
    this.#code.push({ op: "jump", to: head });
    this.#decide([head], greedy, depth, nullable);
  }

  #optional(count: number, greedy: boolean, depth: number, nullable: boolean, emit: (depth: number) => void) {
    const heads: number[] = [];
    this.#copies(count, () => {
      heads.push(this.#reserve());
      emit(nullable ? depth + 1 : depth);
    });
    this.#decide(heads, greedy, depth, nullable);
  }

  /** At each head: another iteration, which follows it, or on to what comes next. */
  #decide(heads: readonly number[], greedy: boolean, depth: number, nullable: boolean): void {
    const exit = this.#code.length;
    const bit = 1 << Math.min(depth, MAX_LOOP_DEPTH);
    for (const head of heads) {
      const body = head + 1;
      if (nullable) this.#code[head] = { op: "loop", body, exit, greedy, bit };
      else
        this.#code[head] = greedy
          ? { op: "split", first: body, second: exit }
          : { op: "split", first: exit, second: body };
    }
    if (!nullable) return;
    this.#loopDepth = Math.max(this.#loopDepth, depth + 1);
    this.#code.push({ op: "leave", bit });
  }
}

/** Any character, newlines included. */
const anything = anySet(Flag.DOTALL);

/** Counts above this are not kept in a relaxed program. */
const RELAXED_COUNT = 32;

/** Whether the parts can match without consuming a character. */
export function canBeEmpty(parts: readonly Part[]): boolean {
  return parts.every((part) => {
    switch (part.op) {
      case "capture":
      case "atomic":
        return canBeEmpty(part.body);
      case "branch":
        return part.branches.some(canBeEmpty);
      case "repeat":
        return part.min === 0 || canBeEmpty(part.body);
      case "conditional":
        return canBeEmpty(part.yes) || canBeEmpty(part.no);
      default:
        return part.op !== "char";
    }
  });
}

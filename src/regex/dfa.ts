import { holds, relevantTraits, Trait, traitsOf } from "./position.ts";
import type { Program } from "./program.ts";

/** Where a match may lie: the whole text, from its start, or anywhere. */
export type Extent = "full" | "start" | "anywhere";

/** How far a text gets through a pattern, as lengths of prefixes of the text. */
export type Progress = {
  /** The longest prefix with which a matching text may begin. */
  readonly viable: number;
  /** The prefix after which the most of the pattern was used up; a leading `.*` takes any text, but uses up nothing. */
  readonly deepest: number;
};

/** States in memory, and instructions in all their sets, before the automaton starts afresh. */
const MAX_STATES = 2_000;
const MAX_STORED = 200_000;
/** Characters beyond ASCII whose symbols are remembered. */
const MAX_REMEMBERED = 10_000;

const NEWLINE = 10;

/** Characters that no set and no condition of the program tells apart. */
type Symbol = {
  readonly index: number;
  /** By set of the program: whether it has these characters. */
  readonly inSet: readonly boolean[];
  readonly traits: number;
};

/** Where the automaton can be after some characters: instructions about to run, and what came before. */
type State = {
  readonly instructions: readonly number[];
  readonly before: number;
  /** By symbol index; filled in on demand. */
  readonly next: (State | undefined)[];
  /** Whether there is a match if the text ends here; filled in on demand. */
  accepts: boolean | undefined;
};

const dead: State = { instructions: [], before: 0, next: [], accepts: false };
const found: State = { instructions: [], before: 0, next: [], accepts: true };

/**
 * Decides whether there is a match, without saying where its groups are: subset construction on demand.
 * One table lookup per character once warm; time is linear in the text however the pattern nests its repeats.
 * Emptiness rules of Python's loops change captures but not the language, so `loop` counts as a split here.
 */
export class LazyDfa {
  readonly #program: Program;
  readonly #extent: Extent;
  /** Traits of the character before that conditions of the program look at; likewise after. */
  readonly #beforeMask: number;
  readonly #afterMask: number;

  readonly #symbols: Symbol[] = [];
  readonly #symbolBySignature = new Map<string, Symbol>();
  /** Index of the symbol by ASCII character, -1 if not known yet; for other characters a map. */
  readonly #asciiSymbols = new Int32Array(128).fill(-1);
  readonly #otherSymbols = new Map<number, Symbol>();

  #states = new Map<string, State>();
  #stored = 0;
  #initial: State | undefined;
  readonly #visited: Uint32Array;
  #visit = 0;

  constructor(program: Program, extent: Extent) {
    this.#program = program;
    this.#extent = extent;
    this.#visited = new Uint32Array(program.code.length);
    let beforeMask = 0;
    let afterMask = 0;
    for (const instruction of program.code) {
      if (instruction.op !== "at") continue;
      const { before, after } = relevantTraits[instruction.position];
      beforeMask |= before;
      afterMask |= after;
    }
    this.#beforeMask = beforeMask;
    this.#afterMask = afterMask;
  }

  /** Whether the pattern matches `text` in this automaton's extent. */
  test(text: string): boolean {
    this.#initial ??= this.#state([0], 0);
    let state = this.#initial;
    const ascii = this.#asciiSymbols;
    const length = text.length;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      let index = code < 128 ? ascii[code]! : -1;
      if (index < 0) {
        const whole = text.codePointAt(i)!;
        if (whole > 0xffff) i++;
        index = this.#symbol(whole, i === length - 1).index;
      }
      state = state.next[index] ?? this.#step(state, this.#symbols[index]!);
      if (state === dead) return false;
      if (state === found) return true;
    }
    state.accepts ??= this.#closure(state, 0).matches;
    return state.accepts;
  }

  /** How far a text gets; for the extent "full". */
  progress(text: string): Progress {
    this.#initial ??= this.#state([0], 0);
    let state = this.#initial;
    let deepest = 0;
    let depth = -1;
    for (let i = 0; i < text.length; i++) {
      const start = i;
      const code = text.codePointAt(i)!;
      if (code > 0xffff) i++;
      const symbol = this.#symbol(code, i === text.length - 1);
      state = state.next[symbol.index] ?? this.#step(state, symbol);
      if (state === dead) return { viable: start, deepest };
      // instructions are in the order of the pattern, and sorted within a state
      const reached = state.instructions[state.instructions.length - 1]!;
      if (reached < depth) continue;
      depth = reached;
      deepest = i + 1;
    }
    return { viable: text.length, deepest };
  }

  #symbol(code: number, last: boolean): Symbol {
    const lastMatters = code === NEWLINE && (this.#afterMask & Trait.LAST) !== 0;
    const isFinalNewline = lastMatters && last;
    if (code < 128 && this.#asciiSymbols[code]! >= 0) return this.#symbols[this.#asciiSymbols[code]!]!;
    if (code >= 128) {
      const known = this.#otherSymbols.get(code);
      if (known) return known;
    }
    const traits =
      (traitsOf(code) | (isFinalNewline ? Trait.LAST : 0)) & (this.#beforeMask | this.#afterMask);
    const inSet = this.#program.sets.map((set) => set.has(code));
    const signature = `${inSet.map(Number).join("")} ${traits}`;
    let symbol = this.#symbolBySignature.get(signature);
    if (!symbol) {
      symbol = { index: this.#symbols.length, inSet, traits };
      this.#symbols.push(symbol);
      this.#symbolBySignature.set(signature, symbol);
    }
    // A newline whose place matters is looked up each time.
    if (lastMatters) return symbol;
    if (code < 128) this.#asciiSymbols[code] = symbol.index;
    else {
      if (this.#otherSymbols.size >= MAX_REMEMBERED) this.#otherSymbols.clear();
      this.#otherSymbols.set(code, symbol);
    }
    return symbol;
  }

  #step(state: State, symbol: Symbol): State {
    const { consuming, matches } = this.#closure(state, symbol.traits);
    let next: State;
    if (matches && this.#extent !== "full") next = found;
    else {
      const targets: number[] = this.#extent === "anywhere" ? [0] : [];
      for (const index of consuming) {
        const instruction = this.#program.code[index]!;
        if (instruction.op === "char" && symbol.inSet[instruction.set]) targets.push(index + 1);
      }
      next = targets.length === 0 ? dead : this.#state(targets, symbol.traits & this.#beforeMask);
    }
    state.next[symbol.index] = next;
    return next;
  }

  #state(instructions: number[], before: number): State {
    instructions.sort((a, b) => a - b);
    const key = `${before}:${instructions.join()}`;
    const known = this.#states.get(key);
    if (known) return known;
    if (this.#states.size >= MAX_STATES || this.#stored >= MAX_STORED) {
      this.#states = new Map();
      this.#stored = 0;
      this.#initial = undefined;
    }
    const state: State = { instructions, before, next: [], accepts: undefined };
    this.#states.set(key, state);
    this.#stored += instructions.length + 1;
    return state;
  }

  /** Consuming instructions reachable without consuming, and whether the match instruction is. */
  #closure(state: State, after: number): { consuming: number[]; matches: boolean } {
    const { code } = this.#program;
    const visited = this.#visited;
    const visit = ++this.#visit;
    const consuming: number[] = [];
    const pending = [...state.instructions];
    let matches = false;
    const add = (index: number) => {
      if (visited[index] === visit) return;
      visited[index] = visit;
      pending.push(index);
    };
    for (let index = pending.pop(); index !== undefined; index = pending.pop()) {
      visited[index] = visit;
      const instruction = code[index]!;
      switch (instruction.op) {
        case "char":
          consuming.push(index);
          break;
        case "at":
          if (holds(instruction.position, state.before, after)) add(index + 1);
          break;
        case "mark":
        case "leave":
          add(index + 1);
          break;
        case "jump":
          add(instruction.to);
          break;
        case "split":
          add(instruction.first);
          add(instruction.second);
          break;
        case "loop":
          add(instruction.body);
          add(instruction.exit);
          break;
        case "match":
          matches = true;
          break;
      }
    }
    return { consuming, matches };
  }
}

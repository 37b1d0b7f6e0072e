import { RegexError } from "../errors.ts";
import type { Backtracker, CharRepeat, Node, Possessive, Repeat } from "./backtrack-nodes.ts";
import { fold } from "./charset.ts";
import type { Extent } from "./dfa.ts";
import type { Spans } from "./pike.ts";
import { holds, traitsAfter, traitsBefore } from "./position.ts";

/** Steps that one call may take: some tenths of a second at most. */
export const MAX_STEPS = 2_000_000;
/** Untried ways kept at a time, which bounds memory. */
const MAX_CHOICES = 1_000_000;

/** A repeat under way. Never changes: an iteration makes a new one. */
type Loop = {
  readonly repeat: Repeat;
  readonly count: number;
  /** Where the last optional iteration began; none begins there again. */
  readonly last: number;
  readonly outer: Loop | undefined;
};

/** A part that is matched by itself: lookaround, atomic group, possessive iteration. */
type Frame = {
  readonly node: Node & { op: "look" | "atomic" | "possessive" };
  /** Choices when it began; those made inside are dropped when it ends. */
  readonly choices: number;
  readonly position: number;
  readonly loop: Loop | undefined;
  readonly outer: Frame | undefined;
  /** Iterations done before this one, in a possessive repeat. */
  readonly count: number;
};

/** Of a choice: the node is still to run. */
const ITSELF = -1;

/** An untried way. `marks` are restored with it, if the rules say so (see `#save`). */
type Choice = {
  readonly node: Node;
  position: number;
  readonly loop: Loop | undefined;
  readonly frame: Frame | undefined;
  readonly lastMark: number;
  readonly marks: readonly number[] | undefined;
  /** ITSELF: go on at the node. Else the next alternative of a branch, or the last position of a range to try. */
  rest: number;
};

/**
 * Matches by backtracking, step for step as CPython does, with an explicit stack.
 * That includes how CPython keeps capture marks: a way that fails restores which marks count (`lastMark`) but their
 * values only inside a repeat, so `(?:(a)(?:x|y)|ab)*+` on "axab" reports the second "a".
 * @returns undefined if there is no match.
 * @throws RegexError "regex-too-slow" after `maxSteps` steps.
 * Source: CPython 3.11 Modules/_sre/sre_lib.h.
 */
export function runBacktracker(
  matcher: Backtracker,
  codes: ArrayLike<number>,
  extent: Extent,
  maxSteps = MAX_STEPS,
): Spans | undefined {
  const run = new Run(matcher, codes, extent === "full", maxSteps);
  const lastStart = extent === "anywhere" ? codes.length : 0;
  for (let start = 0; start <= lastStart; start++) {
    const spans = run.matchAt(start);
    if (spans) return spans;
  }
  return undefined;
}

class Run {
  readonly #matcher: Backtracker;
  readonly #codes: ArrayLike<number>;
  readonly #full: boolean;
  #stepsLeft: number;

  #node: Node;
  #position = 0;
  #loop: Loop | undefined;
  #frame: Frame | undefined;
  /** Starts and ends of groups: group g at 2g - 2 and 2g - 1. Only those up to `#lastMark` count. */
  readonly #marks: number[];
  #lastMark = -1;
  readonly #choices: Choice[] = [];

  constructor(matcher: Backtracker, codes: ArrayLike<number>, full: boolean, maxSteps: number) {
    this.#matcher = matcher;
    this.#codes = codes;
    this.#full = full;
    this.#stepsLeft = maxSteps;
    this.#node = matcher.start;
    this.#marks = new Array(2 * matcher.groupCount).fill(-1);
  }

  matchAt(start: number): Spans | undefined {
    this.#node = this.#matcher.start;
    this.#position = start;
    this.#loop = undefined;
    this.#frame = undefined;
    this.#lastMark = -1;
    this.#choices.length = 0;
    for (;;) {
      this.#spend(1);
      if (this.#node.op === "success") {
        if (!this.#full || this.#position === this.#codes.length) return this.#spans(start);
        if (!this.#backtrack()) return undefined;
      } else if (!this.#step(this.#node) && !this.#backtrack()) return undefined;
    }
  }

  #spend(steps: number): void {
    this.#stepsLeft -= steps;
    if (this.#stepsLeft < 0 || this.#choices.length > MAX_CHOICES)
      throw new RegexError(
        "matching takes too many steps: the pattern backtracks too much on this text. " +
          "Avoid nested repeats such as (a+)+, or backreferences and lookarounds inside repeats.",
        { code: "regex-too-slow", details: { textLength: this.#codes.length } },
      );
  }

  #spans(start: number): Spans {
    const spans = [start, this.#position];
    for (let group = 0; group < this.#matcher.groupCount; group++) {
      const [from, to] = this.#group(group + 1) ?? [-1, -1];
      spans.push(from, to);
    }
    return spans;
  }

  /** Span of a group; undefined if it took no part in the match. */
  #group(group: number): [number, number] | undefined {
    const slot = 2 * group - 2;
    if (slot >= this.#lastMark) return undefined;
    const from = this.#marks[slot]!;
    const to = this.#marks[slot + 1]!;
    return from < 0 || to < from ? undefined : [from, to];
  }

  /** Runs one node; false if it fails. */
  #step(node: Node): boolean {
    const codes = this.#codes;
    const position = this.#position;
    switch (node.op) {
      case "char":
        if (position >= codes.length || !node.set.has(codes[position]!)) return false;
        this.#position++;
        this.#node = node.next;
        return true;
      case "at":
        if (!holds(node.position, traitsBefore(codes, position), traitsAfter(codes, position))) return false;
        this.#node = node.next;
        return true;
      case "mark":
        this.#mark(node.slot);
        this.#node = node.next;
        return true;
      case "branch":
        this.#choose(node, this.#loop !== undefined, 1);
        this.#node = node.branches[0]!;
        return true;
      case "char-repeat":
        return this.#repeatChars(node);
      case "repeat":
        this.#loop = { repeat: node, count: -1, last: -1, outer: this.#loop };
        return this.#until(this.#loop);
      case "until":
        return this.#until(this.#loop!);
      case "possessive":
        return this.#possess(node, 0, -1);
      case "atomic":
        this.#enter(node, 0);
        return true;
      case "look":
        return this.#look(node);
      case "backreference":
        return this.#repeatGroup(node);
      case "conditional":
        this.#node = this.#group(node.group) ? node.yes : node.no;
        return true;
      case "part-end":
        return this.#leave(this.#frame!);
      case "success":
        return false;
    }
  }

  #mark(slot: number): void {
    for (let between = this.#lastMark + 1; between < slot; between++) this.#marks[between] = -1;
    this.#lastMark = Math.max(this.#lastMark, slot);
    this.#marks[slot] = this.#position;
  }

  /** Remembers a way to try if this one fails. */
  #choose(node: Node, saveMarks: boolean, rest: number = ITSELF): void {
    this.#choices.push({
      node,
      position: this.#position,
      loop: this.#loop,
      frame: this.#frame,
      lastMark: this.#lastMark,
      marks: saveMarks && this.#lastMark >= 0 ? this.#marks.slice(0, this.#lastMark + 1) : undefined,
      rest,
    });
  }

  /** Takes the latest untried way; false if there is none. */
  #backtrack(): boolean {
    for (;;) {
      const choice = this.#choices.at(-1);
      if (choice === undefined) return false;
      const { node, marks } = choice;
      this.#lastMark = choice.lastMark;
      if (marks) for (let slot = 0; slot < marks.length; slot++) this.#marks[slot] = marks[slot]!;
      this.#loop = choice.loop;
      this.#frame = choice.frame;
      this.#position = choice.position;
      if (choice.rest === ITSELF) {
        this.#choices.pop();
        this.#node = node;
        return true;
      }
      if (node.op === "branch") {
        this.#node = node.branches[choice.rest]!;
        if (++choice.rest === node.branches.length) this.#choices.pop();
        return true;
      }
      if (node.op === "char-repeat" && this.#nextInRange(node, choice)) return true;
    }
  }

  /** Next position at which a repeat of characters may end; drops the choice with the last one. */
  #nextInRange(node: CharRepeat, choice: Choice): boolean {
    const { next } = node;
    const codes = this.#codes;
    if (node.mode === "lazy") {
      const at = choice.position;
      if (at >= choice.rest || !node.set.has(codes[at]!)) {
        this.#choices.pop();
        return false;
      }
      choice.position = at + 1;
    } else {
      let at = choice.position - 1;
      if (next.op === "char") while (at >= choice.rest && !next.set.has(codes[at]!)) at--;
      this.#spend(choice.position - at);
      if (at < choice.rest) {
        this.#choices.pop();
        return false;
      }
      choice.position = at;
      if (at === choice.rest) this.#choices.pop();
    }
    this.#position = choice.position;
    this.#node = next;
    return true;
  }

  #repeatChars(node: CharRepeat): boolean {
    const { set, min, max, mode } = node;
    const start = this.#position;
    const farthest = Math.min(this.#codes.length, start + max);
    const wanted = mode === "lazy" ? Math.min(farthest, start + min) : farthest;
    let end = start;
    while (end < wanted && set.has(this.#codes[end]!)) end++;
    this.#spend(end - start);
    if (end - start < min) return false;
    this.#position = end;
    this.#node = node.next;
    if (mode === "lazy") {
      if (end < farthest) this.#choose(node, this.#loop !== undefined, farthest);
    } else if (mode === "greedy" && end - start > min)
      this.#choose(node, this.#loop !== undefined, start + min);
    return true;
  }

  /** Decides after an iteration, or before the first: again, or on. */
  #until(loop: Loop): boolean {
    const { repeat, outer } = loop;
    const count = loop.count + 1;
    const position = this.#position;
    if (count < repeat.min) {
      this.#loop = { ...loop, count };
      this.#node = repeat.body;
      return true;
    }
    const again = count < repeat.max && position !== loop.last;
    const iteration: Loop = { repeat, count, last: position, outer };
    if (repeat.lazy && again) {
      this.#loop = iteration;
      this.#choose(repeat.body, outer !== undefined);
    }
    this.#loop = outer;
    this.#node = repeat.next;
    if (!repeat.lazy && again) {
      this.#choose(repeat.next, true);
      this.#loop = iteration;
      this.#node = repeat.body;
    }
    return true;
  }

  #enter(node: Frame["node"], count: number): void {
    this.#frame = {
      node,
      choices: this.#choices.length,
      position: this.#position,
      loop: this.#loop,
      outer: this.#frame,
      count,
    };
    this.#node = node.body;
  }

  /** The part in `frame` matched: its choices are final. */
  #leave(frame: Frame): boolean {
    const { node } = frame;
    this.#choices.length = frame.choices;
    this.#loop = frame.loop;
    this.#frame = frame.outer;
    switch (node.op) {
      case "atomic":
        this.#node = node.next;
        return true;
      case "look":
        if (node.negate) {
          this.#choices.pop();
          return false;
        }
        this.#position = frame.position;
        this.#node = node.next;
        return true;
      case "possessive":
        if (frame.count >= node.min) this.#choices.pop();
        return this.#possess(node, frame.count + 1, frame.count >= node.min ? frame.position : -1);
    }
  }

  /** Decides after `count` possessive iterations, the last of them, if optional, from `last`. */
  #possess(node: Possessive, count: number, last: number): boolean {
    if (count < node.min) {
      this.#enter(node, count);
      return true;
    }
    if (count < node.max && this.#position !== last) {
      this.#choose(node.next, true);
      this.#enter(node, count);
    } else this.#node = node.next;
    return true;
  }

  #look(node: Node & { op: "look" }): boolean {
    const start = this.#position - node.back;
    if (start < 0) {
      this.#node = node.next;
      return node.negate;
    }
    if (node.negate) this.#choose(node.next, this.#loop !== undefined);
    this.#enter(node, 0);
    this.#position = start;
    return true;
  }

  #repeatGroup({ group, mode, next }: Node & { op: "backreference" }): boolean {
    const span = this.#group(group);
    if (!span) return false;
    const codes = this.#codes;
    let at = this.#position;
    this.#spend(span[1] - span[0]);
    for (let i = span[0]; i < span[1]; i++, at++)
      if (at >= codes.length || fold(codes[at]!, mode) !== fold(codes[i]!, mode)) return false;
    this.#position = at;
    this.#node = next;
    return true;
  }
}

import type { Extent } from "./dfa.ts";
import { holds, traitsAfter, traitsBefore } from "./position.ts";
import type { Program } from "./program.ts";

/** Ends of the whole match and of each group, in code points: start at 2g, end at 2g + 1; -1 where unset. */
export type Spans = readonly number[];

/** A way through the program, waiting for the next character. */
type Thread = { readonly at: number; readonly spans: Spans };

/**
 * Finds the match that Python's backtracking would find first, in time linear in the text: all ways through the
 * program advance together, in order of preference, and of ways that meet only the preferred one goes on.
 * An own simulation rather than the re2js package: Python enters a loop with an empty iteration where RE2 does not
 * (`(a*)*` on "b" sets group 1 to ""), keeps captures of earlier iterations, and has other rules for `$`, `\b` and case.
 * Source: Pike 1987 as told by Cox, "Regular Expression Matching: the Virtual Machine Approach"; CPython sre_lib.h.
 */
export function runProgram(
  program: Program,
  codes: ArrayLike<number>,
  extent: Extent,
  groupCount: number,
): Spans | undefined {
  const { code, sets, loopDepth } = program;
  const noSpans: Spans = new Array(2 * groupCount + 2).fill(-1);
  const visited = new Visited(code.length, loopDepth);
  let threads: Thread[] = [{ at: 0, spans: withSpan(noSpans, 0, 0) }];
  let best: Spans | undefined;

  for (let position = 0; position <= codes.length; position++) {
    const before = traitsBefore(codes, position);
    const after = traitsAfter(codes, position);
    const next: Thread[] = [];
    visited.clear();
    if (extent === "anywhere" && position > 0 && best === undefined)
      threads.push({ at: 0, spans: withSpan(noSpans, 0, position) });
    for (const thread of threads) {
      if (follow(thread, position, before, after, next)) break;
    }
    if (next.length === 0 && (extent !== "anywhere" || best !== undefined)) break;
    threads = next;
  }
  return best;

  /** Runs a thread up to its consuming instructions; true if it matched, which ends all less preferred ones. */
  function follow(thread: Thread, position: number, before: number, after: number, next: Thread[]): boolean {
    const pending: { at: number; bits: number; spans: Spans }[] = [{ ...thread, bits: 0 }];
    for (let top = pending.pop(); top !== undefined; top = pending.pop()) {
      let { at, bits, spans } = top;
      for (;;) {
        if (!visited.add(at, bits)) break;
        const instruction = code[at]!;
        if (instruction.op === "char") {
          if (
            position < codes.length &&
            visited.addConsuming(at) &&
            sets[instruction.set]!.has(codes[position]!)
          )
            next.push({ at: at + 1, spans });
          break;
        }
        if (instruction.op === "match") {
          if (extent === "full" && position < codes.length) break;
          best = withSpan(spans, 1, position);
          return true;
        }
        switch (instruction.op) {
          case "at":
            if (holds(instruction.position, before, after)) {
              at++;
              continue;
            }
            break;
          case "mark":
            spans = withSpan(spans, instruction.slot, position);
            at++;
            continue;
          case "leave":
            bits &= ~instruction.bit;
            at++;
            continue;
          case "jump":
            at = instruction.to;
            continue;
          case "split":
            pending.push({ at: instruction.second, bits, spans });
            at = instruction.first;
            continue;
          case "loop": {
            const { body, exit, greedy, bit } = instruction;
            if (bits & bit) at = exit;
            else if (greedy) {
              pending.push({ at: exit, bits, spans });
              at = body;
              bits |= bit;
            } else {
              pending.push({ at: body, bits: bits | bit, spans });
              at = exit;
            }
            continue;
          }
        }
        break;
      }
    }
    return false;
  }
}

function withSpan(spans: Spans, slot: number, position: number): Spans {
  const copy = spans.slice();
  copy[slot] = position;
  return copy;
}

/** Instructions already reached at a position, apart for each combination of loop bits. */
class Visited {
  readonly #byInstruction: Uint32Array;
  readonly #consuming: Uint32Array;
  readonly #withBits = new Set<number>();
  readonly #combinations: number;
  #visit = 1;

  constructor(instructions: number, loopDepth: number) {
    this.#byInstruction = new Uint32Array(instructions);
    this.#consuming = new Uint32Array(instructions);
    this.#combinations = 2 ** loopDepth;
  }

  clear(): void {
    this.#visit++;
    this.#withBits.clear();
  }

  /** False if it was there. */
  add(at: number, bits: number): boolean {
    if (bits === 0) return this.#stamp(this.#byInstruction, at);
    const key = at * this.#combinations + bits;
    if (this.#withBits.has(key)) return false;
    this.#withBits.add(key);
    return true;
  }

  /** Consuming ends all iterations' emptiness, so bits don't matter. False if it was there. */
  addConsuming(at: number): boolean {
    return this.#stamp(this.#consuming, at);
  }

  #stamp(stamps: Uint32Array, at: number): boolean {
    if (stamps[at] === this.#visit) return false;
    stamps[at] = this.#visit;
    return true;
  }
}

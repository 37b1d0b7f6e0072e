/** Why a sequence ended: an end-of-sequence token, a stop string, or the token limit. */
export type StopReason = "eos" | "stop" | "length";

/**
 * Whether a sequence ends with the token just generated.
 * @param newTokens how many have been generated, this one included.
 */
export function stopReason(
  token: number,
  newTokens: number,
  { eosTokenIds, maxNewTokens }: { eosTokenIds: readonly number[]; maxNewTokens: number },
): "eos" | "length" | undefined {
  if (eosTokenIds.includes(token)) return "eos";
  return newTokens >= maxNewTokens ? "length" : undefined;
}

/**
 * Cuts streamed text at the first stop string. Text that may turn out to be the beginning of one is held back,
 * so that no part of a stop string is ever passed on. However the text is divided into pieces, the result is
 * the same: the stop string that ends first counts, of several ending there the longest; neither it nor what
 * follows comes out. (transformers' StopStringCriteria stops at the same place but keeps the stop string.)
 */
export class StopStringFilter {
  readonly #stops: readonly string[];
  #held = "";
  #stopped: string | undefined;

  /** @param stops strings to stop at; empty ones are ignored. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop.length > 0);
  }

  /** The stop string that was found, once it was. */
  get stopped(): string | undefined {
    return this.#stopped;
  }

  /** Takes more text; returns what can be passed on for certain. */
  push(text: string): string {
    if (this.#stopped !== undefined) return "";
    const pending = this.#held + text;
    let end = Infinity;
    for (const stop of this.#stops) {
      const start = pending.indexOf(stop);
      if (start === -1) continue;
      const stopEnd = start + stop.length;
      if (stopEnd < end || (stopEnd === end && stop.length > this.#stopped!.length)) {
        end = stopEnd;
        this.#stopped = stop;
      }
    }
    if (this.#stopped !== undefined) {
      this.#held = "";
      return pending.slice(0, end - this.#stopped.length);
    }
    const kept = this.#unfinished(pending);
    this.#held = pending.slice(pending.length - kept);
    return pending.slice(0, pending.length - kept);
  }

  /** What was held back, as no more text comes. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Length of the longest end of `text` with which a stop string begins. */
  #unfinished(text: string): number {
    let longest = 0;
    for (const stop of this.#stops)
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--)
        if (stop.startsWith(text.slice(text.length - length))) longest = length;
    return longest;
  }
}

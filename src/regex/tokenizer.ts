import { RegexError } from "../errors.ts";

/** Error of a pattern that Python's `re.compile` rejects. `position` counts code points; null where Python gives none. */
export function invalidPattern(pattern: string, reason: string, position: number | null): RegexError {
  const place = position === null ? "" : ` at position ${position}`;
  return new RegexError(`invalid regular expression ${excerpt(pattern, position ?? 0)}: ${reason}${place}.`, {
    code: "invalid-regex",
    details: { pattern, reason, position },
  });
}

/** Longer patterns are shown in part, so many characters on either side of the error. */
const SHOWN = 60;

/** The pattern in quotes, or what is around a position (in code points) of a long one. */
export function excerpt(pattern: string, position: number): string {
  if (pattern.length <= 4 * SHOWN) return JSON.stringify(pattern);
  let at = 0;
  for (let i = 0; i < position && at < pattern.length; i++) at += pattern.codePointAt(at)! > 0xffff ? 2 : 1;
  const start = Math.max(0, at - SHOWN);
  const end = Math.min(pattern.length, at + SHOWN);
  const shown = JSON.stringify(pattern.slice(start, end));
  return `${start > 0 ? "…" : ""}${shown}${end < pattern.length ? "…" : ""} (${pattern.length} characters)`;
}

/** Number of code points. */
export function codePointLength(text: string): number {
  let length = 0;
  for (const _ of text) length++;
  return length;
}

/**
 * Reads a pattern one code point or one backslash pair at a time, with one token of lookahead.
 * Positions are code points, as in CPython's `re._parser.Tokenizer`.
 */
export class Tokenizer {
  readonly pattern: string;
  /** The token ahead; null at the end. */
  next: string | null = null;
  readonly #characters: readonly string[];
  /** Position after the token ahead. */
  #index = 0;

  constructor(pattern: string) {
    this.pattern = pattern;
    this.#characters = Array.from(pattern);
    this.#advance();
  }

  #advance(): void {
    const first = this.#characters[this.#index];
    if (first === undefined) {
      this.next = null;
      return;
    }
    if (first !== "\\") {
      this.#index += 1;
      this.next = first;
      return;
    }
    const second = this.#characters[this.#index + 1];
    if (second === undefined)
      throw invalidPattern(
        this.pattern,
        "the pattern ends with a lone backslash",
        this.#characters.length - 1,
      );
    this.#index += 2;
    this.next = first + second;
  }

  /** Position of the token ahead. */
  get position(): number {
    if (this.next === null) return this.#index;
    return this.#index - (this.next[0] === "\\" ? 2 : 1);
  }

  get(): string | null {
    const token = this.next;
    this.#advance();
    return token;
  }

  /** Consumes the token ahead if it is `token`. */
  match(token: string): boolean {
    if (this.next !== token) return false;
    this.#advance();
    return true;
  }

  /** Consumes up to `limit` tokens that satisfy the test. */
  getWhile(limit: number, test: (token: string) => boolean): string {
    let text = "";
    while (limit-- > 0 && this.next !== null && test(this.next)) {
      text += this.next;
      this.#advance();
    }
    return text;
  }

  /** Consumes up to and including `terminator`; what came before must not be empty. */
  getUntil(terminator: string, what: string): string {
    let text = "";
    for (;;) {
      const token = this.next;
      this.#advance();
      if (token === null) {
        if (text === "") throw this.error(`missing ${what}`);
        throw this.error(`missing "${terminator}" after the ${what}`, codePointLength(text));
      }
      if (token === terminator) {
        if (text === "") throw this.error(`missing ${what}`, 1);
        return text;
      }
      text += token;
    }
  }

  seek(position: number): void {
    this.#index = position;
    this.#advance();
  }

  /** An error `back` code points before the token ahead. */
  error(reason: string, back = 0): RegexError {
    return invalidPattern(this.pattern, reason, this.position - back);
  }
}

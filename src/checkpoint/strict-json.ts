/**
 * A JSON parser (RFC 8259) for files that nobody has vouched for. Unlike JSON.parse it keeps duplicate keys,
 * gives integers exactly, and says where a mistake is.
 */

export type JsonValue = null | boolean | number | bigint | JsonFloat | string | JsonValue[] | JsonObject;

/** A number written with a fraction or an exponent, negative zero, or one too long to be an offset. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** Members in the order of the file, duplicates included. */
export type JsonObject = { readonly keys: string[]; readonly values: JsonValue[] };

/** A mistake, at a UTF-16 index of the text. */
export class JsonSyntaxError extends Error {
  override readonly name = "JsonSyntaxError";
  readonly index: number;

  constructor(message: string, index: number) {
    super(message);
    this.index = index;
  }
}

/** serde_json's recursion limit; far beyond any real file, far below the stack. */
const maxDepth = 128;

/** 2^64 has 20 digits. Longer ones need not be exact, and parsing a million digits would take long. */
const maxIntegerLength = 21;

const number = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for
const controls = /[\u0000-\u001f]/;
const nonFinite = /NaN|-?Infinity/y;
const escapes: Record<string, string> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

export type ParseOptions = {
  /**
   * Called for each member of the outermost object, which then stays empty. With 100,000 members this is
   * twice as fast as keeping them all.
   */
  readonly onMember?: (key: string, value: JsonValue) => void;
  /**
   * Given the text and where a member's value begins, may read it itself; returns where it ends, or -1 to leave it
   * to the parser. For values that are written by a machine, always alike, and 100,000 times.
   */
  readonly fastMember?: (key: string, text: string, index: number) => number;
  /** Accept NaN, Infinity and -Infinity, as Python's `json` module writes and reads them. */
  readonly allowNonFinite?: boolean;
  /** Accept escapes of half a surrogate pair, as JSON.parse does; no UTF-8 string can hold one. */
  readonly allowLoneSurrogates?: boolean;
};

export const isJsonObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof JsonFloat);

/** @throws JsonSyntaxError */
export function parseStrictJson(text: string, options: ParseOptions = {}): JsonValue {
  const parser = new Parser(text, options);
  return parser.document();
}

/** Plain objects and arrays; of duplicate keys the last wins, and integers become numbers, as with JSON.parse. */
export function toPlain(value: JsonValue): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof JsonFloat) return value.value;
  if (Array.isArray(value)) return value.map(toPlain);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(value.keys.map((key, i) => [key, toPlain(value.values[i]!)]));
}

/** A short description of a value for a message. */
export function describe(value: JsonValue | undefined): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value))
    return value.length <= 8 ? `[${value.map(describe).join(", ")}]` : `an array of ${value.length} values`;
  if (isJsonObject(value)) return "an object";
  if (value instanceof JsonFloat) return String(value.value);
  if (typeof value !== "string") return String(value);
  return value.length <= 40 ? JSON.stringify(value) : `${JSON.stringify(value.slice(0, 40))}…`;
}

const noOptions: ParseOptions = {};

class Parser {
  private index = 0;
  /** Where the next backslash is; a string that ends before it needs no decoding. */
  private nextBackslash = 0;
  /** Control characters may only be white space between values; most headers have none at all. */
  private readonly hasControls: boolean;
  private readonly text: string;
  private readonly options: ParseOptions;

  constructor(text: string, options: ParseOptions) {
    this.text = text;
    this.options = options;
    this.hasControls = controls.test(text);
  }

  document(): JsonValue {
    const value = this.value(0);
    if (this.peek() !== undefined) this.fail("unexpected text after the end of the JSON value");
    return value;
  }

  private fail(message: string, index = this.index): never {
    throw new JsonSyntaxError(message, index);
  }

  /** The next character that is not white space, not consumed; undefined at the end. */
  private peek(): number | undefined {
    while (this.index < this.text.length) {
      const code = this.text.charCodeAt(this.index);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code;
      this.index++;
    }
    return undefined;
  }

  private value(depth: number): JsonValue {
    const code = this.peek();
    switch (code) {
      case 0x7b: // {
        return this.object(depth);
      case 0x5b: // [
        return this.array(depth);
      case 0x22: // "
        return this.string();
      case undefined:
        return this.fail("the text ends where a value should be");
      default:
        return this.number(code) ?? this.word();
    }
  }

  private object(depth: number): JsonObject {
    if (depth >= maxDepth) this.fail(`more than ${maxDepth} levels of nesting`);
    this.index++;
    const object: JsonObject = { keys: [], values: [] };
    const { onMember, fastMember } = depth === 0 ? this.options : noOptions;
    if (this.closes(0x7d)) return object;
    do {
      if (this.peek() !== 0x22) this.fail("a key in double quotes should be here");
      const key = this.string();
      if (this.peek() !== 0x3a) this.fail("a ':' should be here");
      this.index++;
      const end = fastMember?.(key, this.text, this.index) ?? -1;
      if (end !== -1) {
        this.index = end;
        continue;
      }
      const value = this.value(depth + 1);
      if (onMember !== undefined) onMember(key, value);
      else {
        object.keys.push(key);
        object.values.push(value);
      }
    } while (this.continues(0x7d, "a ',' or '}' should be here"));
    return object;
  }

  private array(depth: number): JsonValue[] {
    if (depth >= maxDepth) this.fail(`more than ${maxDepth} levels of nesting`);
    this.index++;
    const array: JsonValue[] = [];
    if (this.closes(0x5d)) return array;
    do {
      array.push(this.value(depth + 1));
    } while (this.continues(0x5d, "a ',' or ']' should be here"));
    return array;
  }

  private closes(close: number): boolean {
    if (this.peek() !== close) return false;
    this.index++;
    return true;
  }

  /** Consumes a comma (true) or the closing bracket (false). */
  private continues(close: number, expected: string): boolean {
    if (this.closes(close)) return false;
    if (this.peek() !== 0x2c) this.fail(expected);
    this.index++;
    return true;
  }

  private string(): string {
    const { text } = this;
    const start = ++this.index;
    const end = text.indexOf('"', start);
    if (end === -1) this.fail("the string that starts here does not end", start - 1);
    if (this.nextBackslash < start) {
      const next = text.indexOf("\\", start);
      this.nextBackslash = next === -1 ? text.length : next;
    }
    if (this.nextBackslash < end || this.hasControls) return this.scannedString(start);
    this.index = end + 1;
    return text.slice(start, end);
  }

  /** A string read character by character. */
  private scannedString(start: number): string {
    const { text } = this;
    for (; this.index < text.length; this.index++) {
      const code = text.charCodeAt(this.index);
      if (code === 0x22) return text.slice(start, this.index++);
      if (code === 0x5c) return this.escapedString(start);
      if (code < 0x20) this.fail("a control character inside a string must be escaped");
    }
    return this.fail("the string that starts here does not end", start - 1);
  }

  /** A string with escapes, decoded by JSON.parse; where that cannot, by hand, to say what is wrong. */
  private escapedString(start: number): string {
    const end = this.closingQuote();
    try {
      const decoded: string = JSON.parse(this.text.slice(start - 1, end + 1));
      if (this.options.allowLoneSurrogates === true || !/\p{Surrogate}/u.test(decoded)) {
        this.index = end + 1;
        return decoded;
      }
    } catch {
      // Reported below.
    }
    return this.decodedString(start);
  }

  /** Index of the next quote that no backslash escapes; the end of the text if there is none. */
  private closingQuote(): number {
    const { text } = this;
    for (let quote = text.indexOf('"', this.index); quote !== -1; quote = text.indexOf('"', quote + 1)) {
      let backslashes = 0;
      while (text.charCodeAt(quote - 1 - backslashes) === 0x5c) backslashes++;
      if (backslashes % 2 === 0) return quote;
    }
    return text.length;
  }

  /** The rest of a string from its first backslash on. */
  private decodedString(start: number): string {
    const { text } = this;
    const parts = [text.slice(start, this.index)];
    let from = this.index;
    while (this.index < text.length) {
      const code = text.charCodeAt(this.index);
      if (code < 0x20) this.fail("a control character inside a string must be escaped");
      if (code !== 0x22 && code !== 0x5c) {
        this.index++;
        continue;
      }
      parts.push(text.slice(from, this.index));
      if (code === 0x22) {
        this.index++;
        return parts.join("");
      }
      parts.push(this.escape());
      from = this.index;
    }
    return this.fail("the string that starts here does not end", start - 1);
  }

  /** From a backslash on. */
  private escape(): string {
    const start = this.index;
    const letter = this.text[start + 1] ?? "";
    this.index += 2;
    if (letter !== "u") return Object.hasOwn(escapes, letter) ? escapes[letter]! : this.badEscape(start);
    const unit = this.hex4(start);
    const pairs = this.options.allowLoneSurrogates !== true;
    if (!pairs || unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit);
    if (unit > 0xdbff || !this.text.startsWith("\\u", this.index)) this.fail("half a surrogate pair", start);
    this.index += 2;
    const low = this.hex4(start);
    if (low < 0xdc00 || low > 0xdfff) this.fail("half a surrogate pair", start);
    return String.fromCharCode(unit, low);
  }

  private hex4(escapeStart: number): number {
    const digits = this.text.slice(this.index, this.index + 4);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.badEscape(escapeStart);
    this.index += 4;
    return Number.parseInt(digits, 16);
  }

  private badEscape(index: number): never {
    return this.fail("an unknown escape inside a string", index);
  }

  private number(code: number): number | bigint | JsonFloat | undefined {
    // The usual case, by hand: up to 15 digits, no sign, fraction or exponent.
    let integer = 0;
    let end = this.index;
    for (; end - this.index < 15; end++) {
      const digit = this.text.charCodeAt(end) - 0x30;
      if (!(digit >= 0 && digit <= 9)) break;
      integer = integer * 10 + digit;
    }
    const next = this.text.charCodeAt(end);
    const plain = next === 0x2c || next === 0x5d || next === 0x7d; // , ] }
    if (end > this.index && plain && (code !== 0x30 || end === this.index + 1)) {
      this.index = end;
      return integer;
    }
    number.lastIndex = this.index;
    const match = number.exec(this.text);
    if (match === null) return undefined;
    this.index = number.lastIndex;
    const double = Number(match[0]);
    const isInteger = match[1] === undefined && match[2] === undefined && match[0] !== "-0";
    if (!isInteger || match[0].length > maxIntegerLength) return new JsonFloat(double);
    return Number.isSafeInteger(double) ? double : BigInt(match[0]);
  }

  private word(): JsonValue {
    for (const [word, value] of [["true", true] as const, ["false", false] as const, ["null", null] as const])
      if (this.text.startsWith(word, this.index)) {
        this.index += word.length;
        return value;
      }
    nonFinite.lastIndex = this.index;
    const match = this.options.allowNonFinite === true ? nonFinite.exec(this.text) : null;
    if (match === null) return this.fail("a value should be here");
    this.index = nonFinite.lastIndex;
    return new JsonFloat(Number(match[0]));
  }
}

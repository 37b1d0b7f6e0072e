/** UTF-8 byte range of one token in a text. */
type ByteRange = { start: number; end: number };

/** How tokens spell bytes: GPT-2's alphabet, or sentencepiece's "▁" for a space and `<0xNN>` for a byte. */
export type TokenSpelling = "byte-level" | "sentencepiece" | "literal";

const encoder = new TextEncoder();

/** GPT-2's printable stand-in for each byte, reversed. */
const byteOfChar: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

function tokenBytes(token: string, spelling: TokenSpelling): Uint8Array {
  if (spelling === "byte-level") {
    const bytes = Array.from(token, (char) => byteOfChar.get(char));
    if (bytes.every((byte) => byte !== undefined)) return Uint8Array.from(bytes);
  }
  if (spelling === "sentencepiece") {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
    return encoder.encode(token.replaceAll("▁", " "));
  }
  return encoder.encode(token);
}

/**
 * Where each token lies in the text, by spelling the tokens and walking along; undefined if a normalizer changed the
 * text so that tokens no longer spell it. A space that sentencepiece put before the text belongs to no byte; white
 * space that the tokenizer dropped belongs to no token.
 */
export function tokenOffsets(
  text: Uint8Array,
  tokens: readonly string[],
  { spelling, addedTokens }: { spelling: TokenSpelling; addedTokens: ReadonlySet<string> },
): ByteRange[] | undefined {
  const ranges: ByteRange[] = [];
  let at = 0;
  for (const token of tokens) {
    const bytes = addedTokens.has(token) ? encoder.encode(token) : tokenBytes(token, spelling);
    let skip = 0; // bytes of white space in the text before the token
    let drop = 0; // a space of the token that is not in the text
    while (!matches(text, at + skip, bytes)) {
      if (bytes[0] === 0x20 && matches(text, at, bytes.subarray(1))) {
        drop = 1;
        skip = 0;
        break;
      }
      if (!isSpace(text[at + skip])) return undefined;
      skip++;
    }
    const start = at + skip;
    at = start + bytes.length - drop;
    ranges.push({ start, end: at });
  }
  while (isSpace(text[at])) at++;
  return at === text.length ? ranges : undefined;
}

const isSpace = (byte: number | undefined): boolean =>
  byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);

function matches(text: Uint8Array, at: number, bytes: Uint8Array): boolean {
  if (at + bytes.length > text.length) return false;
  for (let i = 0; i < bytes.length; i++) if (text[at + i] !== bytes[i]) return false;
  return true;
}

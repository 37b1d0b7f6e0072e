/** What a decoder puts for bytes that are not, or not yet, valid UTF-8. */
const replacement = "\ufffd";

/**
 * Turns tokens into text as they come, passing on only what later tokens cannot change: a character whose bytes
 * are spread over several tokens comes out with the last of them.
 *
 * A few tokens of context are decoded twice, without and with the new tokens, and the difference is the new
 * text. So leading spaces come out right with decoders that drop the space of the first token (SentencePiece),
 * and the work per token does not grow with the text. The pieces joined are the decoding of all tokens,
 * provided that `decode` does not rewrite text across tokens (`clean_up_tokenization_spaces`).
 *
 * Source: vLLM, `detokenize_incrementally`.
 */
export class TextStreamer {
  readonly #decode: (ids: number[]) => string;
  #ids: number[] = [];
  /** Tokens before this index have been passed on; they are kept as context for the next ones. */
  #passedOn = 0;

  /** @param decode text of a sequence of tokens, e.g. `(ids) => tokenizer.decode(ids, { skipSpecialTokens: true })`. */
  constructor(decode: (ids: number[]) => string) {
    this.#decode = decode;
  }

  /** Takes the next tokens; returns the text that is complete now, often none. */
  push(...ids: number[]): string {
    this.#ids.push(...ids);
    const text = this.#difference();
    if (text === "" || text.endsWith(replacement)) return "";
    this.#ids = this.#ids.slice(this.#passedOn);
    this.#passedOn = this.#ids.length;
    return text;
  }

  /** Text of the tokens still held back, as no more come; incomplete characters are replacement characters. */
  end(): string {
    const text = this.#difference();
    this.#ids = [];
    this.#passedOn = 0;
    return text;
  }

  #difference(): string {
    const before = this.#text(this.#ids.slice(0, this.#passedOn));
    return this.#text(this.#ids).slice(before.length);
  }

  /** Tokenizers may refuse to decode no tokens. */
  #text(ids: number[]): string {
    return ids.length === 0 ? "" : this.#decode(ids);
  }
}

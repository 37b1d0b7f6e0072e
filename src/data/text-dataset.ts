import { readExactly } from "./byte-source.ts";
import { Growable } from "./growable.ts";
import { dataError, type Place } from "./problem.ts";
import { checkIndex } from "./row-dataset.ts";
import { checkTokens } from "./row-ids.ts";
import { appendEos } from "./rows.ts";
import { StatsCounter } from "./stats.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { ByteSource, Dataset, DatasetStats, Example } from "./types.ts";
import { checkTextStart, completeCharacters, decodeUtf8 } from "./utf8.ts";

export type TextDatasetOptions = {
  tokenizer: Tokenizer;
  /** Tokens per example. Default 512. */
  blockSize?: number | undefined;
  /** End each file with the end token. Default: if the tokenizer has one. */
  appendEos?: boolean | undefined;
  /** The model's vocabulary size: tokens must be below it. */
  vocabSize?: number | undefined;
  /** Bytes per read. Default 256 KiB. */
  chunkBytes?: number | undefined;
  signal?: AbortSignal | undefined;
};

/**
 * Plain text for language modelling: each file is one document, opened by the start token (if the tokenizer adds one)
 * and closed by the end token; all of them are joined and cut into blocks of `blockSize` tokens. The last block may be
 * shorter; a single token left over is dropped. Token ids are held in memory, 4 bytes each; the text is not.
 */
export class TextDataset implements Dataset {
  readonly name: string;
  readonly blockSize: number;
  readonly #tokens: Growable<Int32Array>;
  readonly #files: { name: string; start: number }[];
  readonly #counter: StatsCounter;

  private constructor(
    tokens: Growable<Int32Array>,
    files: { name: string; start: number }[],
    blockSize: number,
  ) {
    this.name = files.map((file) => file.name).join(", ");
    this.blockSize = blockSize;
    this.#tokens = tokens;
    this.#files = files;
    this.#counter = new StatsCounter(this.length);
  }

  /** Tokenize text files; they are closed afterwards. @throws DataError "empty", "not-utf8", "token-out-of-range", "block-size" */
  static async open(sources: readonly ByteSource[], options: TextDatasetOptions): Promise<TextDataset> {
    const { blockSize = 512 } = options;
    const place: Place = { file: sources.map((source) => source.name).join(", ") };
    if (!Number.isInteger(blockSize) || blockSize < 2)
      throw dataError("block-size", place, `blockSize must be an integer of at least 2, got ${blockSize}.`);
    const tokens = new Growable((length) => new Int32Array(length));
    const files: { name: string; start: number }[] = [];
    try {
      for (const source of sources) {
        files.push({ name: source.name, start: tokens.length });
        await tokenizeFile(source, tokens, options);
      }
    } finally {
      for (const source of sources) await source.close?.();
    }
    if (tokens.length < 2)
      throw dataError("empty", place, "there is no text. Give a file with at least two tokens.");
    return new TextDataset(tokens, files, blockSize);
  }

  get length(): number {
    const rest = this.#tokens.length % this.blockSize;
    return Math.floor(this.#tokens.length / this.blockSize) + (rest >= 2 ? 1 : 0);
  }

  get stats(): DatasetStats {
    return this.#counter.stats;
  }

  async get(index: number): Promise<Example> {
    checkIndex(index, this.length, this.name);
    const start = index * this.blockSize;
    const inputIds = [...this.#tokens.view(start, start + this.blockSize)];
    const file = this.#files.findLast((candidate) => candidate.start <= start)!.name;
    const example: Example = { inputIds, labels: inputIds.slice(), file };
    this.#counter.add(index, { example, truncated: false, tokenizedApart: false, ignoredKeys: [] });
    return example;
  }
}

/** A piece without any place to cut grows up to this many characters. */
const maxPiece = 16 << 20;

/** Append the tokens of one file, read and tokenized piece by piece. */
async function tokenizeFile(
  source: ByteSource,
  tokens: Growable<Int32Array>,
  options: TextDatasetOptions,
): Promise<void> {
  const { tokenizer, chunkBytes = 256 << 10, vocabSize, signal } = options;
  const place = { file: source.name };
  let first = true;
  let lastId: number | undefined;
  const append = (ids: number[]): void => {
    if (vocabSize !== undefined) checkTokens(ids, "token", vocabSize, place);
    tokens.append(ids);
    lastId = ids.at(-1) ?? lastId;
  };
  const tokenize = (text: string): void => {
    if (text === "") return;
    if (first) append(tokenizer.addsEos ? tokenizer.encode(text).slice(0, -1) : tokenizer.encode(text));
    else append(tokenizer.encodeContinuation(text));
    first = false;
  };

  const head = await readExactly(source, 0, Math.min(4, source.size));
  let pending = ""; // text not tokenized yet
  let partial = new Uint8Array(0); // bytes of a character that the last chunk cut
  for (let offset = checkTextStart(head, place); offset < source.size; offset += chunkBytes) {
    signal?.throwIfAborted();
    const end = Math.min(offset + chunkBytes, source.size);
    const chunk = await readExactly(source, offset, end);
    const bytes = new Uint8Array(partial.length + chunk.length);
    bytes.set(partial);
    bytes.set(chunk, partial.length);
    const whole = end === source.size ? bytes.length : completeCharacters(bytes);
    pending += decodeUtf8(bytes.subarray(0, whole), place, offset - partial.length);
    partial = bytes.slice(whole);
    const cut = cutPosition(pending);
    tokenize(pending.slice(0, cut));
    pending = pending.slice(cut);
  }
  tokenize(pending);
  if (first) return; // an empty file is no document
  const end = lastId === undefined ? [] : [lastId];
  const before = end.length;
  if (tokenizer.addsEos) append([tokenizer.eosTokenId!]);
  else {
    appendEos(end, tokenizer, options, place);
    append(end.slice(before));
  }
}

/**
 * Where text can be cut so that the tokens of the parts are the tokens of the whole: after a line break that stands
 * between two characters that are not white space, or before CRLF that follows a letter or digit. No pre-tokenizer in
 * use joins across such a place, and sentencepiece models have no token that does. 0 if there is none yet. Text
 * without line breaks is cut before a word once it is very long; then the token at the cut may differ.
 */
export function cutPosition(text: string): number {
  for (let at = text.lastIndexOf("\n", text.length - 2); at > 0; at = text.lastIndexOf("\n", at - 1)) {
    if (text[at - 1] === "\r") {
      if (at > 1 && /[\p{L}\p{N}]/u.test(text[at - 2]!)) return at - 1;
    } else if (!isSpace(text[at - 1]!) && !isSpace(text[at + 1]!)) return at + 1;
  }
  return text.length > maxPiece ? Math.max(text.lastIndexOf(" "), 0) : 0;
}

const isSpace = (char: string): boolean => /\s/.test(char);

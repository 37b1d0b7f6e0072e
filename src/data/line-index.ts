import { readExactly } from "./byte-source.ts";
import { Growable } from "./growable.ts";
import { dataError } from "./problem.ts";
import type { ByteSource } from "./types.ts";
import { checkTextStart, decodeUtf8 } from "./utf8.ts";

export type LineIndexOptions = {
  /** Longest line accepted, in bytes. A longer one usually means a file that is not line-based. Default 16 MiB. */
  maxLineBytes?: number;
  /** Bytes per read of the indexing pass. Default 1 MiB. */
  chunkBytes?: number;
  signal?: AbortSignal;
};

const newline = 0x0a;
const isBlankByte = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0d;

/**
 * Where each line of a text file that is not blank begins and ends: 16 bytes a line, so that a file far larger than
 * memory can be read in any order. Lines end in LF or CRLF; a byte order mark is skipped; lines of spaces, tabs and
 * carriage returns are skipped but counted, so that line numbers are those of an editor.
 */
export class LineIndex {
  readonly source: ByteSource;
  readonly #starts = new Growable((length) => new Float64Array(length));
  readonly #lengths = new Growable((length) => new Uint32Array(length));
  readonly #numbers = new Growable((length) => new Uint32Array(length));
  readonly #reader: WindowReader;

  private constructor(source: ByteSource) {
    this.source = source;
    this.#reader = new WindowReader(source);
  }

  /** @throws DataError for a line longer than `maxLineBytes`, or a file that is not text. */
  static async build(source: ByteSource, options: LineIndexOptions = {}): Promise<LineIndex> {
    const { maxLineBytes = 16 << 20, chunkBytes = 1 << 20, signal } = options;
    const index = new LineIndex(source);
    const head = await readExactly(source, 0, Math.min(4, source.size));
    let start = checkTextStart(head, { file: source.name }); // of the current line
    let number = 1;
    let blank = true; // no other byte in the current line so far

    const endLine = (end: number): void => {
      if (end - start > maxLineBytes) throw tooLong(source.name, number, maxLineBytes);
      if (!blank) {
        index.#starts.push(start);
        index.#lengths.push(end - start);
        index.#numbers.push(number);
      }
      start = end + 1;
      number++;
      blank = true;
    };

    for (let offset = start; offset < source.size; offset += chunkBytes) {
      signal?.throwIfAborted();
      const chunk = await readExactly(source, offset, Math.min(offset + chunkBytes, source.size));
      for (let from = 0; from < chunk.length; ) {
        const found = chunk.indexOf(newline, from);
        const to = found < 0 ? chunk.length : found;
        for (let i = from; blank && i < to; i++) blank = isBlankByte(chunk[i]!);
        if (found >= 0) endLine(offset + found);
        from = to + 1;
      }
      if (offset + chunk.length - start > maxLineBytes) throw tooLong(source.name, number, maxLineBytes);
    }
    if (start < source.size) endLine(source.size);
    return index;
  }

  /** Lines that are not blank. */
  get length(): number {
    return this.#starts.length;
  }

  /** Line number in the file, from 1, of the index-th line that is not blank. */
  lineNumber(index: number): number {
    return this.#numbers.at(index);
  }

  /**
   * Text of the index-th line that is not blank, without its line end.
   * @throws DataError "not-utf8"
   */
  async line(index: number): Promise<string> {
    const start = this.#starts.at(index);
    const bytes = await this.#reader.read(start, start + this.#lengths.at(index));
    const text = decodeUtf8(bytes, { file: this.source.name, line: this.lineNumber(index) }, start);
    return text.endsWith("\r") ? text.slice(0, -1) : text;
  }
}

const tooLong = (file: string, line: number, maxLineBytes: number) =>
  dataError(
    "line-too-long",
    { file, line },
    `the line is longer than ${maxLineBytes} bytes. JSONL has one object a line; ` +
      "split the row, raise maxLineBytes, or name the file .json if it is a JSON array.",
    { maxLineBytes },
  );

/** Reads ranges of a source; a read that continues the previous one fetches a window ahead of it. */
class WindowReader {
  static readonly windowBytes = 256 << 10;
  readonly #source: ByteSource;
  #window: { start: number; end: number; bytes: Promise<Uint8Array> } | undefined;
  /** End of the previous range, to notice sequential access. */
  #previousEnd = -1;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    // Between two lines are a line end and perhaps blank lines, so "continues" has some slack.
    const sequential = start >= this.#previousEnd && start - this.#previousEnd < 4096;
    this.#previousEnd = end;
    let window = this.#window;
    if (window === undefined || start < window.start || end > window.end) {
      if (!sequential) return readExactly(this.#source, start, end);
      const windowEnd = Math.min(Math.max(end, start + WindowReader.windowBytes), this.#source.size);
      window = { start, end: windowEnd, bytes: readExactly(this.#source, start, windowEnd) };
      this.#window = window;
    }
    try {
      return (await window.bytes).subarray(start - window.start, end - window.start);
    } catch (error) {
      // A failed read must not stay cached.
      if (this.#window === window) this.#window = undefined;
      throw error;
    }
  }
}

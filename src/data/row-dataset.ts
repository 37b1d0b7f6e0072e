import { DataError } from "../errors.ts";
import { readAll } from "./byte-source.ts";
import { completionOf, encodeDecoderRow, noProcessor, promptOf } from "./decoder-rows.ts";
import { parseJson } from "./json-text.ts";
import { LineIndex, type LineIndexOptions } from "./line-index.ts";
import { isParquet, type ParquetOptions, parquetRows } from "./parquet-rows.ts";
import { checkPicture, readPicture } from "./pictures.ts";
import { dataError, type Place } from "./problem.ts";
import {
  checkRow,
  detectRowKind,
  isPictured,
  kindsOf,
  type RowKind,
  requireRow,
  requireSameKind,
} from "./row-checks.ts";
import { type Row, readDecoderIds } from "./row-ids.ts";
import { type EncodedRow, encodeRow, type RowOptions } from "./rows.ts";
import { StatsCounter } from "./stats.ts";
import type { ByteSource, Dataset, DatasetStats, Example } from "./types.ts";
import { checkTextStart, decodeUtf8 } from "./utf8.ts";

export type RowDatasetOptions = RowOptions &
  LineIndexOptions &
  ParquetOptions & {
    /** Kind of all rows. Default: that of the first row. */
    kind?: RowKind | undefined;
    /** Check every row when the dataset is opened. Without it, a bad row is an error when it is read. */
    validate?: boolean | undefined;
    signal?: AbortSignal | undefined;
  };

/** Parsed rows by index. */
type Rows = {
  length: number;
  place(index: number): Place;
  /** @throws DataError "bad-json", "not-utf8" */
  row(index: number): Promise<unknown>;
};

/** The most problems that one message lists. */
const maxProblems = 10;

/**
 * Examples from a file of rows: JSONL, read line by line in any order; one JSON array, held in memory; or parquet, of which
 * some row groups are held.
 */
export class RowDataset implements Dataset {
  readonly name: string;
  readonly kind: RowKind;
  readonly #source: ByteSource;
  readonly #rows: Rows;
  readonly #options: RowOptions;
  readonly #counter: StatsCounter;
  #closed = false;

  private constructor(source: ByteSource, rows: Rows, kind: RowKind, options: RowOptions) {
    this.name = source.name;
    this.kind = kind;
    this.#source = source;
    this.#rows = rows;
    this.#options = options;
    this.#counter = new StatsCounter(rows.length, options.architecture);
  }

  /**
   * Index a file of rows. It is parquet if it is named so or begins so, else JSONL unless it begins with "[{" or a "[" alone on its line, or is named .json
   * and begins with "[". The dataset owns `source` and closes it.
   * @throws DataError "empty" if there are no rows; with `validate`, one that lists the bad rows (at most 10).
   */
  static async open(source: ByteSource, options: RowDatasetOptions): Promise<RowDataset> {
    const {
      kind: givenKind,
      validate = false,
      signal,
      maxLineBytes,
      chunkBytes,
      cacheBytes,
      ...rowOptions
    } = options;
    const lineOptions = {
      ...(maxLineBytes !== undefined && { maxLineBytes }),
      ...(chunkBytes !== undefined && { chunkBytes }),
      ...(signal !== undefined && { signal }),
    };
    const rows = (await isParquet(source))
      ? await parquetRows(source, { cacheBytes })
      : (await isJsonArray(source))
        ? await arrayRows(source)
        : await lineRows(source, lineOptions);
    if (rows.length === 0)
      throw dataError("empty", { file: source.name }, "the file has no rows. Give it at least one row.");
    const { architecture = "decoder", processor } = rowOptions;
    const pictures = architecture === "encoder-decoder" && (rowOptions.pictures ?? processor !== undefined);
    const kind = givenKind ?? detectRowKind(await rows.row(0), rows.place(0), architecture, pictures);
    requireKind(kind, rowOptions, rows.place(0));
    const checked: Rows =
      givenKind !== undefined || architecture === "decoder"
        ? rows
        : {
            ...rows,
            async row(index) {
              const row = await rows.row(index);
              requireSameKind(row, kind, rows.place(index), pictures);
              return row;
            },
          };
    const dataset = new RowDataset(source, checked, kind, rowOptions);
    if (validate) await dataset.#validate(signal);
    return dataset;
  }

  get length(): number {
    return this.#rows.length;
  }

  get stats(): DatasetStats {
    return this.#counter.stats;
  }

  async get(index: number): Promise<Example> {
    checkIndex(index, this.length, this.name);
    if (this.#closed)
      throw dataError("closed", { file: this.name }, "the dataset was closed. Close it after its last use.");
    const row = await this.#rows.row(index);
    const place = this.#rows.place(index);
    const encoded = this.#encode(row, place);
    const pixelValues = await readPicture(row as Row, this.kind, this.#options, place);
    this.#counter.add(index, encoded);
    return pixelValues === undefined ? encoded.example : { ...encoded.example, pixelValues };
  }

  /** An example without its picture, which is not read; `stats` does not count it. @throws as `get` */
  async getText(index: number): Promise<Example> {
    checkIndex(index, this.length, this.name);
    return this.#encode(await this.#rows.row(index), this.#rows.place(index)).example;
  }

  #encode(row: unknown, place: Place): EncodedRow {
    const encode = this.#options.architecture === "encoder-decoder" ? encodeDecoderRow : encodeRow;
    return encode(row, this.kind, this.#options, place);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#source.close?.();
  }

  /** Everything that can be wrong with a row but its tokens' number, without tokenizing texts or decoding pictures. */
  async #check(value: unknown, place: Place): Promise<void> {
    const { kind } = this;
    const { architecture, vocabSize } = this.#options;
    if (architecture !== "encoder-decoder") return checkRow(value, kind, vocabSize, place);
    const row = requireRow(value, place, kind);
    if (kind === "prompt-completion") checkRow(row, kind, vocabSize, place);
    else if (kind === "image-text") {
      promptOf(row, this.#options, place);
      completionOf(row, place);
    } else readDecoderIds(row, vocabSize, place);
    await checkPicture(row, kind, this.#options, place);
  }

  async #problem(index: number): Promise<DataError | undefined> {
    try {
      await this.#check(await this.#rows.row(index), this.#rows.place(index));
      return undefined;
    } catch (error) {
      if (error instanceof DataError) return error;
      throw error;
    }
  }

  async #validate(signal?: AbortSignal): Promise<void> {
    const problems: DataError[] = [];
    let count = 0;
    // Looking into files is mostly waiting.
    const step = isPictured(this.kind) ? 16 : 1;
    for (let start = 0; start < this.length; start += step) {
      if (start % 1024 === 0) signal?.throwIfAborted();
      const indices = Array.from({ length: Math.min(step, this.length - start) }, (_, i) => start + i);
      for (const problem of await Promise.all(indices.map((i) => this.#problem(i))))
        if (problem !== undefined && count++ < maxProblems) problems.push(problem);
    }
    if (count === 1) throw problems[0]!;
    if (count > 1) {
      const more = count > problems.length ? `\n… and ${count - problems.length} more` : "";
      throw new DataError(
        `${this.name}: ${count} of ${this.length} rows cannot be used:\n${problems.map((p) => p.message).join("\n")}${more}`,
        {
          code: "bad-rows",
          details: {
            file: this.name,
            count,
            problems: problems.map((p) => ({ code: p.code, ...p.details })),
          },
        },
      );
    }
  }
}

/** @throws DataError "wrong-kind", "no-processor" if rows of this kind cannot be read with these options. */
function requireKind(
  kind: RowKind,
  { architecture = "decoder", processor, pictures }: RowOptions,
  place: Place,
): void {
  if (!kindsOf[architecture].includes(kind))
    throw dataError(
      "wrong-kind",
      place,
      `rows of kind ${kind} are not for ${architecture === "decoder" ? "a language model" : "an encoder–decoder"}, ` +
        `which reads ${kindsOf[architecture].join(", ")}. Use another model, or other rows.`,
      { kind, architecture },
    );
  if (isPictured(kind) && pictures === false)
    throw dataError(
      "wrong-kind",
      place,
      "the row has a picture, and this model reads none. Use a model for pictures, or read the text alone " +
        'with kind: "prompt-completion".',
      { kind, architecture },
    );
  if (kind === "image-text" && processor === undefined) throw noProcessor(place);
}

/** @throws RangeError */
export function checkIndex(index: number, length: number, name: string): void {
  if (!Number.isInteger(index) || index < 0 || index >= length)
    throw new RangeError(`${name} has ${length} examples; there is no index ${index}.`);
}

const remedy = "Each line must be one complete JSON object.";

async function lineRows(source: ByteSource, options: LineIndexOptions): Promise<Rows> {
  const index = await LineIndex.build(source, options);
  const place = (i: number): Place => ({ file: source.name, line: index.lineNumber(i) });
  return {
    length: index.length,
    place,
    row: async (i) => parseJson(await index.line(i), place(i), remedy),
  };
}

/** A JSON array is held in memory: beyond this size JSONL is the way. */
const maxArrayBytes = 512 << 20;

async function arrayRows(source: ByteSource): Promise<Rows> {
  const file = source.name;
  if (source.size > maxArrayBytes)
    throw dataError(
      "file-too-large",
      { file },
      `a JSON array of ${source.size} bytes would have to be held in memory (limit ${maxArrayBytes}). ` +
        "Convert it to JSONL (jq -c '.[]'), which is read line by line.",
    );
  const bytes = await readAll(source);
  const bom = checkTextStart(bytes, { file });
  const text = decodeUtf8(bytes.subarray(bom), { file }, bom);
  const items = parseJson(text, { file }, "The file must be one JSON array of objects.") as unknown[];
  return {
    length: items.length,
    place: (i) => ({ file, item: i + 1 }),
    row: async (i) => items[i],
  };
}

/** Whether the first character that is not white space opens an array that is not a whole line (a bad JSONL row). */
async function isJsonArray(source: ByteSource): Promise<boolean> {
  const head = await source.read(0, Math.min(4096, source.size));
  const bom = checkTextStart(head, { file: source.name });
  const text = new TextDecoder().decode(head.subarray(bom)).trimStart();
  return text.startsWith("[") && (/\.json$/i.test(source.name) || /^\[\s*(\{|$)/.test(text));
}

import type { AsyncBuffer, FileMetaData } from "hyparquet";
import { isGraftError } from "../errors.ts";
import { readExactly } from "./byte-source.ts";
import { dataError, type Place } from "./problem.ts";
import { rowKeys } from "./row-checks.ts";
import type { Row } from "./row-ids.ts";
import type { ByteSource } from "./types.ts";

export type ParquetOptions = {
  /** Bytes of decoded row groups that are held; one is held whatever its size. Default 256 MiB. */
  cacheBytes?: number | undefined;
};

/** Rows of a parquet file by index. */
export type ParquetRows = {
  length: number;
  place(index: number): Place;
  /** @throws DataError "bad-parquet" */
  row(index: number): Promise<unknown>;
};

/** A row group is decoded as a whole: beyond this size a file is to be written with smaller ones. */
const MAX_GROUP_BYTES = 1 << 30;

/** The columns that any kind of row uses; others are not read. */
const knownColumns = new Set(
  Object.values(rowKeys).flatMap(({ required, optional, instead = {} }) => [
    ...required,
    ...optional,
    ...Object.values(instead).flat(),
  ]),
);

type Group = { start: number; rows: number; bytes: number };

/** Whether a file is parquet, by its name or its first bytes. */
export async function isParquet(source: ByteSource): Promise<boolean> {
  if (/\.parquet$/i.test(source.name)) return true;
  return source.size >= 4 && new TextDecoder().decode(await source.read(0, 4)) === "PAR1";
}

/**
 * Index a parquet file by its footer. A row is read with its whole row group, which stays in memory with others up to
 * `cacheBytes`; only columns that rows use are read. Columns that are null in a row are left out of it.
 * @throws DataError "bad-parquet" for a file that is damaged, encrypted, or has row groups above 1 GiB
 */
export async function parquetRows(
  source: ByteSource,
  { cacheBytes = 256 << 20 }: ParquetOptions = {},
): Promise<ParquetRows> {
  const file = source.name;
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import("hyparquet");
  const buffer = bufferOf(source);
  const metadata = await reading({ file }, () => parquetMetadataAsync(buffer, { geoparquet: false }));
  const names = await reading({ file }, async () =>
    parquetSchema(metadata).children.map(({ element }) => element.name),
  );
  const columns = names.filter((name) => knownColumns.has(name));
  const unread = Object.fromEntries(
    names.filter((name) => !knownColumns.has(name)).map((name) => [name, undefined]),
  );
  const groups = await reading({ file }, async () => groupsOf(metadata, columns, source));
  const length = groups.reduce((sum, { rows }) => sum + rows, 0);

  const held = new Map<Group, Row[]>();
  let heldBytes = 0;
  let turn: Promise<unknown> = Promise.resolve();

  /** One group at a time, so that no more are decoded than are held. */
  function load(group: Group): Promise<Row[]> {
    const loaded = turn.then(async () => {
      const found = held.get(group);
      if (found !== undefined) {
        held.delete(group);
        held.set(group, found); // as the last one used
        return found;
      }
      for (const other of held.keys()) {
        if (heldBytes + group.bytes <= cacheBytes) break;
        held.delete(other);
        heldBytes -= other.bytes;
      }
      const rows = await decode(group);
      held.set(group, rows);
      heldBytes += group.bytes;
      return rows;
    });
    turn = loaded.catch(() => {});
    return loaded;
  }

  async function decode({ start, rows }: Group): Promise<Row[]> {
    const { compressors } = await import("hyparquet-compressors");
    const place = { file, item: start + 1 };
    const decoded = await reading(place, () =>
      parquetReadObjects({
        file: buffer,
        metadata,
        columns,
        rowStart: start,
        rowEnd: start + rows,
        compressors,
        utf8: false,
        geoparquet: false,
        parsers: { stringFromBytes: strictText },
      }),
    );
    if (decoded.length !== rows)
      throw badParquet(place, `its footer promises ${rows} rows here, and there are ${decoded.length}`);
    return decoded;
  }

  return {
    length,
    place: (index) => ({ file, item: index + 1 }),
    async row(index) {
      const group = groups.findLast(({ start }) => start <= index)!;
      const row = (await load(group))[index - group.start]!;
      const entries = Object.entries(row).flatMap(([key, value]) =>
        value == null ? [] : [[key, plain(value, key)] as const],
      );
      return { ...Object.fromEntries(entries), ...unread };
    },
  };
}

const badParquet = (place: Place, reason: string, cause?: unknown) =>
  dataError(
    "bad-parquet",
    place,
    `the parquet file cannot be read: ${reason}. Copy it again, or write it again (Dataset.to_parquet in Python's datasets).`,
    {},
    cause,
  );

/** What the library throws as an error that says where. */
async function reading<Result>(place: Place, read: () => Promise<Result>): Promise<Result> {
  try {
    return await read();
  } catch (cause) {
    if (isGraftError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw badParquet(place, reason.replace(/\.$/, ""), cause);
  }
}

function bufferOf(source: ByteSource): AsyncBuffer {
  const slice = async (start: number, end = source.size): Promise<ArrayBuffer> => {
    const from = start < 0 ? Math.max(source.size + start, 0) : start;
    const bytes = await readExactly(source, from, Math.max(Math.min(end, source.size), from));
    const { buffer, byteOffset, byteLength } = bytes;
    return (
      byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength)
    ) as ArrayBuffer;
  };
  return {
    byteLength: source.size,
    slice(start, end) {
      const reading = slice(start, end);
      // The library may fail over something else before it awaits this.
      reading.catch(() => {});
      return reading;
    },
  };
}

function groupsOf(
  metadata: FileMetaData,
  columns: readonly string[],
  { name: file, size }: ByteSource,
): Group[] {
  let start = 0;
  const groups = metadata.row_groups.map((group) => {
    const rows = Number(group.num_rows);
    const chunks = group.columns.flatMap(({ meta_data: meta }) =>
      meta !== undefined && columns.includes(meta.path_in_schema[0]!) ? [meta] : [],
    );
    const bytes = chunks.reduce((sum, meta) => sum + Number(meta.total_uncompressed_size), 0);
    const inFile = chunks.every(
      ({ dictionary_page_offset: dictionary = 0, data_page_offset: first, total_compressed_size: length }) =>
        [dictionary, first, length].every((value) => Number(value) >= 0) &&
        Number(first) <= size &&
        Number(length) <= size,
    );
    if (!Number.isSafeInteger(rows) || rows < 0 || !(bytes >= 0) || !inFile)
      throw badParquet({ file, item: start + 1 }, "its footer is damaged");
    if (bytes > MAX_GROUP_BYTES)
      throw badParquet(
        { file, item: start + 1 },
        `a group of ${rows} rows takes ${bytes} bytes, more than the limit of ${MAX_GROUP_BYTES}; write it with smaller ones (batch_size=100)`,
      );
    start += rows;
    return { start: start - rows, rows, bytes };
  });
  if (Number(metadata.num_rows) !== start)
    throw badParquet(
      { file },
      `its footer promises ${metadata.num_rows} rows, and its row groups have ${start}`,
    );
  return groups.filter(({ rows }) => rows > 0);
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text that is UTF-8; damaged bytes are not to become tokens. */
const strictText = (bytes: Uint8Array | undefined): string | undefined => bytes && decoder.decode(bytes);

/** A value as JSON would have it; bytes of pictures are copied, so that no row keeps its group in memory. */
function plain(value: unknown, key: string): unknown {
  if (typeof value === "bigint") return Number(value);
  // A text column that its writer did not mark as one.
  if (value instanceof Uint8Array) return key === "image" || key === "bytes" ? value.slice() : textOr(value);
  if (ArrayBuffer.isView(value))
    return Array.from(value as unknown as ArrayLike<unknown>, (v) => plain(v, key));
  if (Array.isArray(value)) return value.map((entry) => plain(entry, key));
  if (typeof value === "object" && value !== null && !(value instanceof Date))
    return Object.fromEntries(
      Object.entries(value).map(([name, entry]) => [name, plain(entry ?? null, name)]),
    );
  return value;
}

function textOr(bytes: Uint8Array): string | Uint8Array {
  try {
    return decoder.decode(bytes);
  } catch {
    return bytes;
  }
}

import { readAll } from "../data/byte-source.ts";
import type { FileStore } from "../data/index.ts";
import { parseJson } from "../data/json-text.ts";
import { dataError } from "../data/problem.ts";
import { checkTextStart, decodeUtf8 } from "../data/utf8.ts";

export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A JSON object in a file; undefined if there is no such file. @throws DataError "bad-json", "bad-processor" */
export async function readJsonObject(store: FileStore, file: string): Promise<JsonObject | undefined> {
  const source = await store.open(file);
  if (source === undefined) return undefined;
  const place = { file: `${store.name}/${file}` };
  try {
    const bytes = await readAll(source);
    const text = decodeUtf8(bytes.subarray(checkTextStart(bytes, place)), place);
    const value = parseJson(text, place, "Copy the file again; it may be an interrupted download.");
    if (!isObject(value))
      throw dataError("bad-processor", place, "expected a JSON object. Copy the file again.");
    return value;
  } finally {
    await source.close?.();
  }
}

/** The files of a checkpoint: a local directory (in Node), or a store as it is. */
export async function openFiles(location: string | FileStore): Promise<FileStore> {
  if (typeof location !== "string") return location;
  if (/^https?:/i.test(location))
    throw dataError(
      "not-a-directory",
      { file: location },
      `a processor is read from a local directory or a store of files. Pass urlStore(${JSON.stringify(location)}).`,
    );
  return (await import("../data/node.ts")).directoryFiles(location);
}

import { CheckpointError, nearest } from "../errors.ts";
import type { ByteSource, FileStore, ReadOptions } from "./byte-source.ts";
import { foreignError, foreignFormat } from "./foreign.ts";
import { JsonSyntaxError, parseStrictJson, toPlain } from "./strict-json.ts";

/** A bound on what is held in memory for one JSON file. The largest tokenizers have some 40 MB. */
const maxJsonLength = 256 * 2 ** 20;

/**
 * Reads a JSON file of the store, as Python's `json.load` would: duplicate keys are allowed (the last counts),
 * and so are NaN, Infinity and -Infinity. Integers beyond 2^53 lose precision.
 * @throws CheckpointError if there is no such file, or where it is not valid JSON, with line and column.
 */
export async function readJson(store: FileStore, file: string, options?: ReadOptions): Promise<unknown> {
  return readJsonWith(JSON.parse, store, file, options);
}

/** As `readJson`, by a parser that accepts no more than `JSON.parse` does. */
export async function readJsonWith(
  parse: (text: string) => unknown,
  store: FileStore,
  file: string,
  options?: ReadOptions,
): Promise<unknown> {
  const source = await store.open(file, options);
  if (source === undefined) throw await missingFile(store, file);
  return parseJson(source, options, parse);
}

/** As `readJson`, but undefined if there is no such file. */
export async function readJsonIfPresent(
  store: FileStore,
  file: string,
  options?: ReadOptions,
): Promise<unknown> {
  const source = await store.open(file, options);
  return source === undefined ? undefined : parseJson(source, options);
}

/** The error for a file that the store does not have; suggests names where the store can list them. */
export async function missingFile(store: FileStore, file: string): Promise<CheckpointError> {
  const files = (await store.list?.()) ?? [];
  const suggestions = nearest(file, files);
  const hint =
    suggestions.length > 0
      ? `Closest: ${suggestions.join(", ")}.`
      : "Check the location, and that the model was downloaded completely.";
  return new CheckpointError(`${store.name}: there is no ${file}. ${hint}`, {
    code: "missing-file",
    details: { store: store.name, file, suggestions },
  });
}

async function parseJson(
  source: ByteSource,
  options?: ReadOptions,
  parse: (text: string) => unknown = JSON.parse,
): Promise<unknown> {
  const { name, size } = source;
  if (size > maxJsonLength)
    throw new CheckpointError(
      `${name}: the file has ${size} bytes, too many for a JSON file (at most ${maxJsonLength}). Check the name.`,
      { code: "json-too-large", details: { file: name, size, limit: maxJsonLength } },
    );
  const bytes = await source.read(0, size, options);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw recognised(name, bytes, cause) ?? invalidJson(name, "it is not valid UTF-8", {}, cause);
  }
  try {
    return parse(text);
  } catch {
    return parseSlowly(name, text, bytes);
  }
}

/** For the few files that JSON.parse rejects: those with NaN or Infinity, and those with a mistake to point at. */
function parseSlowly(name: string, text: string, bytes: Uint8Array): unknown {
  try {
    return toPlain(parseStrictJson(text, { allowNonFinite: true, allowLoneSurrogates: true }));
  } catch (cause) {
    if (!(cause instanceof JsonSyntaxError)) throw cause;
    const before = text.slice(0, cause.index).split("\n");
    const position = { line: before.length, column: before.at(-1)!.length + 1 };
    throw recognised(name, bytes, cause) ?? invalidJson(name, cause.message, position, cause);
  }
}

/** The error for an HTML page or a Git LFS pointer where JSON was expected. */
function recognised(name: string, bytes: Uint8Array, cause: unknown): CheckpointError | undefined {
  const foreign = foreignFormat(bytes);
  return foreign === undefined || foreign.code === "json" ? undefined : foreignError(name, foreign, cause);
}

function invalidJson(
  name: string,
  message: string,
  position: { line?: number; column?: number },
  cause: unknown,
): CheckpointError {
  const where = position.line === undefined ? "" : ` at line ${position.line}, column ${position.column}`;
  return new CheckpointError(
    `${name}: not valid JSON${where}: ${message}. Correct the file, or download it again.`,
    { code: "invalid-json", details: { file: name, ...position }, cause },
  );
}

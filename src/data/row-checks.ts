import { nearest } from "../errors.ts";
import type { ChatMessage } from "./chat-template.ts";
import { dataError, describeValue, type Place, quoteList } from "./problem.ts";
import { type Row, readIds } from "./row-ids.ts";

/** The kinds of rows, in the order in which they are tried; a file has rows of one kind. */
export const rowKinds = [
  "input-ids",
  "messages",
  "prompt-completion",
  "text",
  "image-text",
  "pixel-values",
] as const;
export type RowKind = (typeof rowKinds)[number];

/** What a model makes of a row: it continues its input, or its decoder writes beside what its encoder reads. */
export type Architecture = "decoder" | "encoder-decoder";

export const kindsOf: { readonly [A in Architecture]: readonly RowKind[] } = {
  decoder: ["input-ids", "messages", "prompt-completion", "text"],
  "encoder-decoder": ["input-ids", "prompt-completion", "image-text", "pixel-values"],
};

type RowKeys = {
  required: readonly string[];
  optional: readonly string[];
  /** Other names under which a required key is found. */
  instead?: { readonly [key: string]: readonly string[] };
};

/** The keys that each kind needs, and those that it may have. */
export const rowKeys: { readonly [K in RowKind]: RowKeys } = {
  "input-ids": { required: ["input_ids"], optional: ["labels", "attention_mask"] },
  messages: { required: ["messages"], optional: ["tools"] },
  "prompt-completion": { required: ["prompt", "completion"], optional: [] },
  text: { required: ["text"], optional: [] },
  // The names of a caption and its file are those of Hugging Face's imagefolder.
  "image-text": {
    required: ["image", "completion"],
    optional: ["prompt"],
    instead: { image: ["file_name"], completion: ["text", "caption"] },
  },
  "pixel-values": {
    required: ["pixel_values_file", "input_ids", "labels"],
    optional: ["attention_mask"],
  },
};

const rowShapes: { readonly [A in Architecture]: string } = {
  decoder:
    '{"text"}, {"prompt", "completion"}, {"messages": [{"role", "content"}]} or {"input_ids"[, "labels", "attention_mask"]}',
  "encoder-decoder":
    '{"prompt", "completion"}, {"image", "prompt", "completion"}, {"input_ids", "labels"[, "attention_mask"]} or {"pixel_values_file", "input_ids", "labels"}',
};

/** The name under which a row has one of its kind's keys; undefined if it lacks it. */
export const foundKey = (row: Row, kind: RowKind, key: string): string | undefined =>
  [key, ...(rowKeys[kind].instead?.[key] ?? [])].find((name) => Object.hasOwn(row, name));

const isComplete = (row: Row, kind: RowKind): boolean =>
  rowKeys[kind].required.every((key) => foundKey(row, kind, key) !== undefined);

/**
 * Which kind of row this is. For an encoder–decoder, a row with a picture is of the picture's kind, whatever else it has.
 * @throws DataError "missing-keys", "ambiguous-row", "wrong-kind" for rows that models of this architecture do not read
 */
export function detectRowKind(
  value: unknown,
  place: Place,
  architecture: Architecture = "decoder",
  pictures = false,
): RowKind {
  const row = requireObject(value, place);
  const pictured = pictureKind(row, pictures);
  if (architecture === "decoder" && pictured !== undefined)
    throw dataError(
      "wrong-kind",
      place,
      `the row has a picture (${JSON.stringify(pictureKey(row))}), which a language model does not read. ` +
        'Use a model for pictures, or read the text alone with kind: "prompt-completion" (or "text").',
      { kind: pictured, architecture },
    );
  if (pictured !== undefined) {
    requireRow(row, place, pictured);
    return pictured;
  }
  const complete = kindsOf[architecture].filter((kind) => isComplete(row, kind) && !isPictured(kind));
  if (complete.length === 1) return complete[0]!;
  if (complete.length > 1)
    throw dataError(
      "ambiguous-row",
      place,
      `the row can be read in ${complete.length} ways (${complete.join(", ")}). Say which with the option kind, or remove keys.`,
      { kinds: complete },
    );
  throw missingKeys(row, place, undefined, architecture);
}

export const isPictured = (kind: RowKind): boolean => kind === "image-text" || kind === "pixel-values";

/** The key that says that a row is about a picture. A file's name alone says so only where pictures are read. */
const pictureKey = (row: Row, pictures = false): string | undefined =>
  ["pixel_values_file", "image", ...(pictures ? ["file_name"] : [])].find((key) => Object.hasOwn(row, key));

function pictureKind(row: Row, pictures: boolean): RowKind | undefined {
  const key = pictureKey(row, pictures);
  if (key === undefined) return undefined;
  return key === "pixel_values_file" ? "pixel-values" : "image-text";
}

/**
 * Whether a row has a picture just if rows of this kind have one: those of a file that was taken for one kind by its first
 * row. @throws DataError "mixed-kinds"
 */
export function requireSameKind(value: unknown, kind: RowKind, place: Place, pictures: boolean): void {
  const row = requireObject(value, place);
  const pictured = pictureKind(row, pictures);
  if (pictured !== undefined && pictured !== kind) throw mixedKinds(kind, pictured, place);
}

/**
 * Check a row without tokenizing it: keys and types, and for input-ids the tokens.
 * @throws DataError that names the place
 */
export function checkRow(value: unknown, kind: RowKind, vocabSize: number | undefined, place: Place): void {
  const row = requireRow(value, place, kind);
  if (kind === "input-ids") readIds(row, vocabSize, place);
  else if (kind === "messages") readMessages(row, place);
  else for (const key of rowKeys[kind].required) requireText(row, key, place);
}

/** The row as an object that has the keys of its kind, if one is given. */
export function requireRow(value: unknown, place: Place, kind?: RowKind): Row {
  const row = requireObject(value, place);
  if (kind !== undefined && !isComplete(row, kind)) throw missingKeys(row, place, kind);
  return row;
}

function requireObject(value: unknown, place: Place): Row {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Row;
  throw dataError(
    "not-an-object",
    place,
    `a row must be a JSON object, got ${describeValue(value)}. Expected ${rowShapes.decoder}.`,
  );
}

const mixedKinds = (kind: RowKind, found: RowKind, place: Place): Error =>
  dataError(
    "mixed-kinds",
    place,
    `the row is of kind ${found}, but the rows before it are of kind ${kind}. Put the two kinds into separate files.`,
    { kind, found },
  );

function missingKeys(row: Row, place: Place, kind?: RowKind, architecture: Architecture = "decoder"): Error {
  const keys = Object.keys(row);
  const has = keys.length === 0 ? "an empty object" : `the keys ${quoteList(keys)}`;
  if (kind !== undefined) {
    const { required } = rowKeys[kind];
    const other = rowKinds.find((k) => k !== kind && isComplete(row, k));
    const missing = required.filter((key) => foundKey(row, kind, key) === undefined);
    if (other !== undefined && !isPictured(kind)) return mixedKinds(kind, other, place);
    return dataError(
      "missing-keys",
      place,
      `the row lacks ${quoteList(missing)}; it has ${has}.${suggest(missing, keys)}`,
      { missing, keys },
    );
  }
  const foreign = rowKinds.find(
    (k) => !kindsOf[architecture].includes(k) && !isPictured(k) && isComplete(row, k),
  );
  if (foreign !== undefined)
    return dataError(
      "wrong-kind",
      place,
      `the row is of kind ${foreign}, which is for language models; this model's encoder reads one text and its decoder writes another. Expected ${rowShapes[architecture]}.`,
      { kind: foreign, architecture },
    );
  const partial = Object.hasOwn(row, "prompt")
    ? ["completion"]
    : Object.hasOwn(row, "completion")
      ? ["prompt"]
      : [];
  const wanted =
    partial.length > 0 ? partial : [...new Set(kindsOf[architecture].flatMap((k) => rowKeys[k].required))];
  return dataError(
    "missing-keys",
    place,
    `the row has ${has}; expected ${rowShapes[architecture]}.${suggest(wanted, keys)}`,
    { missing: wanted, keys },
  );
}

/** ` Rename "promt" to "prompt".` for keys that look misspelt. */
function suggest(missing: readonly string[], keys: readonly string[]): string {
  const renames = missing.flatMap((key) => {
    const [found] = nearest(key, keys, 1);
    return found === undefined ? [] : [`${JSON.stringify(found)} to ${JSON.stringify(key)}`];
  });
  return renames.length > 0 ? ` Rename ${renames.join(", ")}.` : " Rename or add keys.";
}

export function requireText(row: Row, key: string, place: Place): string {
  const value = row[key];
  if (typeof value === "string") return value;
  const remedy =
    Array.isArray(value) && key !== "text"
      ? 'A conversation goes into "messages".'
      : "Write it as a JSON string.";
  throw dataError("wrong-type", place, `"${key}" must be text, got ${describeValue(value)}. ${remedy}`, {
    key,
  });
}

export function readMessages(row: Row, place: Place): { messages: ChatMessage[]; tools?: unknown[] } {
  const { messages, tools } = row;
  if (!Array.isArray(messages) || messages.length === 0)
    throw dataError(
      "wrong-type",
      place,
      `"messages" must be a list of {"role", "content"}, got ${Array.isArray(messages) ? "an empty list" : describeValue(messages)}.`,
    );
  messages.forEach((message: unknown, i) => {
    const at = `messages[${i}]`;
    if (typeof message !== "object" || message === null || Array.isArray(message))
      throw dataError(
        "wrong-type",
        place,
        `${at} must be {"role", "content"}, got ${describeValue(message)}.`,
      );
    const keys = Object.keys(message);
    if (typeof (message as Row)["role"] !== "string")
      throw dataError(
        "wrong-type",
        place,
        `${at} lacks a "role"; it has the keys ${quoteList(keys)}.${suggest(["role"], keys)}`,
      );
    const { content, tool_calls: toolCalls } = message as Row;
    if (typeof content !== "string" && !Array.isArray(content) && toolCalls === undefined)
      throw dataError(
        "wrong-type",
        place,
        content === undefined
          ? `${at} lacks "content"; it has the keys ${quoteList(keys)}.${suggest(["content"], keys)}`
          : `${at}.content must be text, got ${describeValue(content)}.`,
      );
  });
  const roles = messages.map((message: ChatMessage) => message.role);
  if (!roles.includes("assistant")) {
    const [near] = nearest("assistant", roles, 1);
    throw dataError(
      "no-assistant",
      place,
      `no message has the role "assistant", so there is nothing to learn; the roles are ${quoteList([...new Set(roles)])}.` +
        (near === undefined ? " Add the answer." : ` Rename ${JSON.stringify(near)} to "assistant".`),
    );
  }
  if (tools !== undefined && tools !== null && !Array.isArray(tools))
    throw dataError(
      "wrong-type",
      place,
      `"tools" must be a list of JSON schemas, got ${describeValue(tools)}.`,
    );
  return Array.isArray(tools) ? { messages, tools } : { messages };
}

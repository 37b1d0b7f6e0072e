import { nearest } from "../errors.ts";
import type { ChatMessage } from "./chat-template.ts";
import { dataError, type Place, quoteList } from "./problem.ts";
import { IGNORED_LABEL } from "./types.ts";

/** The kinds of rows, in the order in which they are tried; a file has rows of one kind. */
export const rowKinds = ["input-ids", "messages", "prompt-completion", "text"] as const;
export type RowKind = (typeof rowKinds)[number];

/** The keys that each kind needs, and those that it may have. */
export const rowKeys: {
  readonly [K in RowKind]: { required: readonly string[]; optional: readonly string[] };
} = {
  "input-ids": { required: ["input_ids"], optional: ["labels", "attention_mask"] },
  messages: { required: ["messages"], optional: ["tools"] },
  "prompt-completion": { required: ["prompt", "completion"], optional: [] },
  text: { required: ["text"], optional: [] },
};

const rowShapes =
  '{"text"}, {"prompt", "completion"}, {"messages": [{"role", "content"}]} or {"input_ids"[, "labels", "attention_mask"]}';

export type Row = Record<string, unknown>;

/**
 * Which kind of row this is. @throws DataError "missing-keys" or "ambiguous-row"
 */
export function detectRowKind(value: unknown, place: Place): RowKind {
  const row = requireObject(value, place);
  const complete = rowKinds.filter((kind) => rowKeys[kind].required.every((key) => Object.hasOwn(row, key)));
  if (complete.length === 1) return complete[0]!;
  if (complete.length > 1)
    throw dataError(
      "ambiguous-row",
      place,
      `the row can be read in ${complete.length} ways (${complete.join(", ")}). Say which with the option kind, or remove keys.`,
      { kinds: complete },
    );
  throw missingKeys(row, place);
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
  if (kind !== undefined && !rowKeys[kind].required.every((key) => Object.hasOwn(row, key)))
    throw missingKeys(row, place, kind);
  return row;
}

function requireObject(value: unknown, place: Place): Row {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Row;
  throw dataError(
    "not-an-object",
    place,
    `a row must be a JSON object, got ${describe(value)}. Expected ${rowShapes}.`,
  );
}

const describe = (value: unknown): string => {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "string")
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  return typeof value === "object" ? "an object" : `${typeof value} ${String(value)}`;
};

function missingKeys(row: Row, place: Place, kind?: RowKind): Error {
  const keys = Object.keys(row);
  const has = keys.length === 0 ? "an empty object" : `the keys ${quoteList(keys)}`;
  if (kind !== undefined) {
    const { required } = rowKeys[kind];
    const other = rowKinds.find(
      (k) => k !== kind && rowKeys[k].required.every((key) => Object.hasOwn(row, key)),
    );
    const missing = required.filter((key) => !Object.hasOwn(row, key));
    if (other !== undefined)
      return dataError(
        "mixed-kinds",
        place,
        `the row is of kind ${other}, but the rows before it are of kind ${kind}. Put the two kinds into separate files.`,
        { kind, found: other },
      );
    return dataError(
      "missing-keys",
      place,
      `the row lacks ${quoteList(missing)}; it has ${has}.${suggest(missing, keys)}`,
      { missing, keys },
    );
  }
  const partial = Object.hasOwn(row, "prompt")
    ? ["completion"]
    : Object.hasOwn(row, "completion")
      ? ["prompt"]
      : [];
  const wanted = partial.length > 0 ? partial : rowKinds.flatMap((k) => rowKeys[k].required);
  return dataError(
    "missing-keys",
    place,
    `the row has ${has}; expected ${rowShapes}.${suggest(wanted, keys)}`,
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
  throw dataError("wrong-type", place, `"${key}" must be text, got ${describe(value)}. ${remedy}`, { key });
}

export function readMessages(row: Row, place: Place): { messages: ChatMessage[]; tools?: unknown[] } {
  const { messages, tools } = row;
  if (!Array.isArray(messages) || messages.length === 0)
    throw dataError(
      "wrong-type",
      place,
      `"messages" must be a list of {"role", "content"}, got ${Array.isArray(messages) ? "an empty list" : describe(messages)}.`,
    );
  messages.forEach((message: unknown, i) => {
    const at = `messages[${i}]`;
    if (typeof message !== "object" || message === null || Array.isArray(message))
      throw dataError("wrong-type", place, `${at} must be {"role", "content"}, got ${describe(message)}.`);
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
          : `${at}.content must be text, got ${describe(content)}.`,
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
    throw dataError("wrong-type", place, `"tools" must be a list of JSON schemas, got ${describe(tools)}.`);
  return Array.isArray(tools) ? { messages, tools } : { messages };
}

export function readIds(row: Row, vocabSize: number | undefined, place: Place) {
  const integers = (key: string): number[] => {
    const values = row[key];
    if (!Array.isArray(values))
      throw dataError("wrong-type", place, `"${key}" must be a list of integers, got ${describe(values)}.`, {
        key,
      });
    const bad = values.findIndex((value) => !Number.isSafeInteger(value));
    if (bad >= 0)
      throw dataError(
        "wrong-type",
        place,
        `"${key}"[${bad}] must be an integer, got ${describe(values[bad])}.`,
        { key, position: bad },
      );
    return values as number[];
  };
  let inputIds = integers("input_ids").slice();
  let labels = row["labels"] == null ? inputIds.slice() : integers("labels").slice();
  const mask = row["attention_mask"] == null ? undefined : integers("attention_mask");
  for (const [key, values] of [
    ["labels", labels],
    ["attention_mask", mask],
  ] as const)
    if (values !== undefined && values.length !== inputIds.length)
      throw dataError(
        "length-mismatch",
        place,
        `"${key}" has ${values.length} values, "input_ids" has ${inputIds.length}. They must be equally long.`,
        { key },
      );
  checkTokens(inputIds, "input_ids", vocabSize, place);
  checkTokens(labels, "labels", vocabSize, place);
  if (mask !== undefined) {
    const odd = mask.findIndex((bit) => bit !== 0 && bit !== 1);
    if (odd >= 0)
      throw dataError("wrong-type", place, `"attention_mask"[${odd}] is ${mask[odd]}; it must be 0 or 1.`, {
        position: odd,
      });
    const first = mask.indexOf(1);
    const end = mask.lastIndexOf(1) + 1;
    const hole = first < 0 ? -1 : mask.slice(first, end).indexOf(0);
    if (hole >= 0)
      throw dataError(
        "masked-inside",
        place,
        `"attention_mask"[${first + hole}] is 0 between tokens that are 1. Only padding at the ends can be masked; ` +
          'to leave tokens out of the loss, set their "labels" to -100.',
        { position: first + hole },
      );
    inputIds = first < 0 ? [] : inputIds.slice(first, end);
    labels = first < 0 ? [] : labels.slice(first, end);
  }
  return { inputIds, labels };
}

/** @throws DataError "token-out-of-range" that names position and token. */
export function checkTokens(
  ids: readonly number[],
  key: string,
  vocabSize: number | undefined,
  place: Place,
): void {
  const limit = vocabSize ?? 2 ** 31;
  for (let position = 0; position < ids.length; position++) {
    const token = ids[position]!;
    if (token >= 0 && token < limit) continue;
    if (key === "labels" && token === IGNORED_LABEL) continue;
    const allowed = `0 to ${limit - 1}${key === "labels" ? ", or -100 for no loss" : ""}`;
    const remedy =
      key === "token"
        ? "The tokenizer has more tokens than the model: use the tokenizer that belongs to it."
        : "Tokenize with the tokenizer that belongs to the model.";
    throw dataError(
      "token-out-of-range",
      place,
      `${key === "token" ? "the token" : `"${key}"`} at position ${position} is ${token}, outside the vocabulary (${allowed}). ${remedy}`,
      { position, token, vocabSize: limit, key },
    );
  }
}

import { DataError } from "../errors.ts";

/** Where in a data file something is: a line of a line-based file, or an item of a JSON array (both from 1). */
export type Place = { file: string; line?: number; item?: number; column?: number };

/** `rows.jsonl:12:5`, `rows.json, item 3`. */
export function describePlace({ file, line, item, column }: Place): string {
  if (item !== undefined) return `${file}, item ${item}`;
  if (line === undefined) return file;
  return column === undefined ? `${file}:${line}` : `${file}:${line}:${column}`;
}

/** A DataError whose message opens with the place and whose details hold it. */
export const dataError = (
  code: string,
  place: Place,
  message: string,
  details: Record<string, unknown> = {},
  cause?: unknown,
): DataError =>
  new DataError(`${describePlace(place)}: ${message}`, { code, details: { ...place, ...details }, cause });

/** Names in quotes, at most `limit` of them: `"a", "b" and 3 more`. */
export function quoteList(names: readonly string[], limit = 8): string {
  const shown = names.slice(0, limit).map((name) => JSON.stringify(name));
  const rest = names.length - shown.length;
  return rest > 0 ? `${shown.join(", ")} and ${rest} more` : shown.join(", ");
}

/** A value for messages: `number 5`, `an array`, `the text "abc"`. */
export const describeValue = (value: unknown): string => {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "string")
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  return typeof value === "object" ? "an object" : `${typeof value} ${String(value)}`;
};

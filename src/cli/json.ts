/**
 * A JSON document for a program to read. Numbers that JSON lacks become the strings "NaN", "Infinity" and "-Infinity",
 * as in metrics files; sets and maps become lists and objects, 64-bit integers numbers.
 */
export const toJson = (value: unknown): string => JSON.stringify(value, (_, inner) => plain(inner), 2);

function plain(value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Set) return [...value];
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Error) return value.message;
  return value;
}

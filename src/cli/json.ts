/** Lists longer than this have one line an item: a document of 100,000 modules is then written in a tenth of the time. */
const longList = 1000;

/**
 * A JSON document for a program to read. Numbers that JSON lacks become the strings "NaN", "Infinity" and "-Infinity",
 * as in metrics files; sets and maps become lists and objects, 64-bit integers numbers.
 */
export function toJson(value: unknown): string {
  if (!isRecord(value) || !Object.values(value).some(isLong)) return JSON.stringify(value, replace, 2);
  const members = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .map(([key, item]) => {
      const text = isLong(item)
        ? `[\n    ${item.map(line).join(",\n    ")}\n  ]`
        : JSON.stringify(item, replace, 2).replaceAll("\n", "\n  ");
      return `  ${JSON.stringify(key)}: ${text}`;
    });
  return `{\n${members.join(",\n")}\n}`;
}

const isLong = (value: unknown): value is readonly unknown[] =>
  Array.isArray(value) && value.length > longList;

/** An item of a list; most need no help to be JSON. */
const line = (item: unknown): string => JSON.stringify(item, isJson(item) ? undefined : replace) ?? "null";

const replace = (_: string, inner: unknown): unknown => plain(inner);

/** Whether JSON.stringify writes all of a value as `plain` would. */
function isJson(value: unknown): boolean {
  switch (typeof value) {
    case "string":
    case "boolean":
    case "undefined":
      return true;
    case "number":
      return Number.isFinite(value);
    case "object":
      if (value === null) return true;
      if (Array.isArray(value)) {
        for (let i = 0; i < value.length; i++) if (!isJson(value[i])) return false;
        return true;
      }
      if (!isRecord(value)) return false;
      for (const key in value) if (!isJson(value[key])) return false;
      return true;
    default:
      return false;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

function plain(value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Set) return [...value];
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Error) return value.message;
  return value;
}

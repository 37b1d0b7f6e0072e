/** A number that Python writes as a float: 1 as `1.0`. */
export class PythonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** JSON, with the order of members and the kind of numbers under control. */
export type PythonJson =
  | null
  | boolean
  | number
  | string
  | PythonFloat
  | readonly PythonJson[]
  | ReadonlyMap<string, PythonJson>;

/** Order of strings by code points, as Python sorts them. */
export function byCodePoints(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!;
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

/** The text that Python's `json.dumps(value, indent=2)` makes of it. */
export function writePythonJson(value: PythonJson, indent = ""): string {
  if (value instanceof PythonFloat) return pythonFloat(value.value);
  if (typeof value === "number") return Number.isSafeInteger(value) ? String(value) : pythonFloat(value);
  if (typeof value === "string") return quote(value);
  if (value === null || typeof value === "boolean") return String(value);
  const inner = `${indent}  `;
  const isMap = value instanceof Map;
  const items = isMap
    ? [...(value as ReadonlyMap<string, PythonJson>)].map(
        ([key, item]) => `${quote(key)}: ${writePythonJson(item, inner)}`,
      )
    : (value as readonly PythonJson[]).map((item) => writePythonJson(item, inner));
  const [open, close] = isMap ? "{}" : "[]";
  if (items.length === 0) return `${open}${close}`;
  return `${open}\n${inner}${items.join(`,\n${inner}`)}\n${indent}${close}`;
}

/** Any JSON value as parsed, members sorted by name as `sort_keys` does. */
export function sortedJson(value: unknown): PythonJson {
  if (Array.isArray(value)) return value.map(sortedJson);
  if (typeof value !== "object" || value === null) return value as PythonJson;
  return new Map(
    Object.entries(value)
      .sort(([a], [b]) => byCodePoints(a, b))
      .map(([key, item]) => [key, sortedJson(item)]),
  );
}

/** Plain objects, arrays and numbers. */
export function toPlain(value: PythonJson): unknown {
  if (value instanceof PythonFloat) return value.value;
  if (Array.isArray(value)) return value.map(toPlain);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, toPlain(item)]));
  return value;
}

/** Python's repr of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16. */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
  if (Object.is(value, -0)) return "-0.0";
  const [mantissa = "", power = ""] = value.toExponential().split("e");
  const exponent = Number(power);
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    const digits = String(Math.abs(exponent)).padStart(2, "0");
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${digits}`;
  }
  const text = String(value);
  // JavaScript writes integers up to 1e21 and fractions from 1e-6 without an exponent
  return text.includes(".") ? text : `${text}.0`;
}

/** A string in ASCII. */
const quote = (text: string): string =>
  JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

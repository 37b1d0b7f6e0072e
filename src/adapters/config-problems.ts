import { AdapterError, nearest } from "../errors.ts";
import { Tuple } from "../selection/index.ts";

/** Something wrong with a configuration. */
export type ConfigProblem = {
  /** The option, spelt as it was given: `loraAlpha`, or `lora_alpha` in a file. */
  readonly field: string;
  /** PEFT's failure, named as in a SelectionError; "invalid-value" and "unknown-option" otherwise. */
  readonly code: string;
  readonly value: unknown;
  readonly message: string;
  readonly remedy: string;
};

/** Where the options come from: a call, or a file, whose names are in snake_case. */
export type Origin = { readonly file?: string | undefined; readonly spell: (field: string) => string };

/** @throws AdapterError with all problems, if there are any; its code is that of the first. */
export function refuse(problems: readonly ConfigProblem[], { file }: Origin): void {
  const [first] = problems;
  if (first === undefined) return;
  const subject = file ?? "LoraConfig";
  const lines = problems.map(({ message, remedy }) => `${message}. ${remedy}`);
  throw new AdapterError(
    lines.length === 1
      ? `${subject}: ${lines[0]}`
      : `${subject} has ${lines.length} problems:\n${lines.map((line) => `- ${line}`).join("\n")}`,
    { code: first.code, details: { ...(file !== undefined && { file }), problems } },
  );
}

/** The problem of a value that is not what its option takes. `choices`: strings to suggest from. */
export function invalidValue(
  field: string,
  value: unknown,
  expectation: string,
  fallback: string,
  choices: readonly string[] = [],
): ConfigProblem {
  const close = typeof value === "string" ? nearest(value.toLowerCase(), choices, 1)[0] : undefined;
  return {
    field,
    code: "invalid-value",
    value,
    message: `${field} must be ${expectation}, not ${show(value)}`,
    remedy:
      close === undefined
        ? (rewritten(value, expectation) ?? fallback)
        : `Closest: ${JSON.stringify(close)}.`,
  };
}

/** What the value was probably meant to be. */
function rewritten(value: unknown, expectation: string): string | undefined {
  if (typeof value !== "string") return undefined;
  if (/number/.test(expectation) && value.trim() !== "" && Number.isFinite(Number(value)))
    return `Write ${Number(value)}, without quotes.`;
  if (/^true or false/.test(expectation) && /^(true|false)$/i.test(value))
    return `Write ${value.toLowerCase()}, without quotes.`;
  if (/^a list of names/.test(expectation)) return `Write [${JSON.stringify(value)}].`;
  return undefined;
}

/** A value as JSON for a message, shortened. */
export function show(value: unknown): string {
  const json = asJson(value);
  return json.length > 80 ? `${json.slice(0, 77)}…` : json;
}

/** A value as JSON; sets and tuples as lists, maps as objects. */
export function asJson(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  const plain =
    value instanceof Set || value instanceof Tuple
      ? [...value]
      : value instanceof Map
        ? Object.fromEntries(value)
        : value;
  const replacer = (_: string, item: unknown) => (typeof item === "bigint" ? String(item) : item);
  return JSON.stringify(plain, replacer) ?? (typeof value === "function" ? "a function" : String(value));
}

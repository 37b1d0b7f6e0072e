import { z } from "zod";
import { Tuple } from "../selection/index.ts";

/** A check of a whole value; the expectation completes "must be …". */
export const is = <T>(expectation: string, accepts: (value: unknown) => boolean) =>
  z.custom<T>(accepts, { error: expectation });

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
export const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);
export const isText = (value: unknown): value is string => typeof value === "string";
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" &&
  value !== null &&
  [Object.prototype, null].includes(Object.getPrototypeOf(value));
export const isListOf = <T>(
  value: unknown,
  accepts: (item: unknown) => item is T,
): value is readonly T[] | ReadonlySet<T> | Tuple<T> =>
  (Array.isArray(value) || value instanceof Set || value instanceof Tuple) && [...value].every(accepts);

/** The value or null. */
const orNull = (accepts: (value: unknown) => boolean) => (value: unknown) => value === null || accepts(value);

export const whole = () => is<number>("a whole number", isWhole);
export const wholeOfAtLeast = (least: number) =>
  is<number>(`a whole number of at least ${least}`, (value) => isWhole(value) && value >= least);
export const number = (expectation = "a finite number", accepts: (value: number) => boolean = () => true) =>
  is<number>(expectation, (value) => isNumber(value) && accepts(value));
export const boolean = () => is<boolean>("true or false", (value) => typeof value === "boolean");
export const text = () => is<string>("a string", isText);
export const textOrNull = () => is<string | null>("a string or null", orNull(isText));
export const recordOrNull = () => is<Record<string, unknown> | null>("an object or null", orNull(isRecord));
export const wholeList = () =>
  is<readonly number[] | null>(
    "a list of whole numbers or null",
    (value) => value === null || (Array.isArray(value) && value.every(isWhole)),
  );

type GivenNames = string | readonly string[] | ReadonlySet<string> | Tuple<string> | null;

/** Names as a set, as PEFT keeps them; text (a regex) and tuples stay. */
export const nameSet = () =>
  is<GivenNames>(
    "a list of names, a string (a regex of whole names), or null",
    (value) => value === null || isText(value) || isListOf(value, isText),
  ).transform((value) =>
    value === null || typeof value === "string" || value instanceof Tuple ? value : new Set(value),
  );

/** Names as a list. */
export const nameList = () =>
  is<Exclude<GivenNames, string>>(
    "a list of names or null",
    (value) => value === null || isListOf(value, isText),
  ).transform((value) => value && [...value]);

export const nameOrList = () =>
  is<GivenNames>(
    "a name, a list of names, or null",
    (value) => value === null || isText(value) || isListOf(value, isText),
  ).transform((value) => (value === null || typeof value === "string" ? value : [...value]));

type GivenTable = ReadonlyMap<string, number> | Readonly<Record<string, number>> | null;
const entries = (table: object): Iterable<readonly [unknown, unknown]> =>
  table instanceof Map ? table : Object.entries(table);

/** Pattern to number, in order. */
export const table = (expectation: string, accepts: (value: number) => boolean = () => true) =>
  is<GivenTable>(
    `an object of patterns and ${expectation}, or null`,
    (value) =>
      value === null ||
      ((value instanceof Map || isRecord(value)) &&
        [...entries(value)].every(([key, item]) => isText(key) && isNumber(item) && accepts(item))),
  ).transform((value) => value && new Map(entries(value) as Iterable<readonly [string, number]>));

import { dataError, type Place } from "../../data/problem.ts";
import type { DataError } from "../../errors.ts";

/** Which picture an error is about: its name, and the row that names it, if there is one. */
export type ImagePlace = { name: string; place?: Place };

/** An error about a picture: `rows.jsonl:12: photos/a.png: …`, or `photos/a.png: …`. */
export const imageError = (
  code: string,
  { name, place }: ImagePlace,
  message: string,
  details: Record<string, unknown> = {},
  cause?: unknown,
): DataError =>
  place === undefined
    ? dataError(code, { file: name }, message, { image: name, ...details }, cause)
    : dataError(code, place, `${name}: ${message}`, { image: name, ...details }, cause);

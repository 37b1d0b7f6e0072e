import { SelectionError } from "../errors.ts";

/** Where PEFT fails: while the configuration is constructed, or while the adapter is injected. */
export type Stage = "config" | "inject";

/** A warning that PEFT gives too, in our words. `count`: how often it was given, or how many keys it names. */
export type SelectionWarning = {
  readonly code: string;
  readonly category:
    | "UserWarning"
    | "RuntimeWarning"
    | "PeftWarning"
    | "FutureWarning"
    | "DeprecationWarning";
  readonly message: string;
  count: number;
};

/**
 * The error of a selection. `details` holds PEFT's `stage` and `pythonType` (the exception that Python raises) and
 * whatever the message is made of.
 */
export const failure = (
  stage: Stage,
  pythonType: string,
  code: string,
  message: string,
  details: Record<string, unknown> = {},
): SelectionError => new SelectionError(message, { code, details: { stage, pythonType, code, ...details } });

/** Collects warnings; the same message again only counts up. */
export class Warnings {
  readonly list: SelectionWarning[] = [];

  add(
    code: string,
    message: string,
    category: SelectionWarning["category"] = "UserWarning",
    count = 1,
  ): void {
    const same = this.list.find((warning) => warning.message === message);
    if (same === undefined) this.list.push({ code, category, message, count });
    else same.count += count;
  }
}

/** Names for a message: quoted, at most `limit`, sets and lists alike in the order given. */
export function quoteNames(names: Iterable<string>, limit = 8): string {
  const all = [...names];
  const shown = all
    .slice(0, limit)
    .map((name) => JSON.stringify(name))
    .join(", ");
  return all.length > limit ? `[${shown}, … ${all.length - limit} more]` : `[${shown}]`;
}

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Case } from "./cases.ts";
import type { Contestant } from "./contestants.ts";
import type { Load, Machine } from "./machine.ts";
import type { Measurement } from "./measure.ts";

/** When, on what and with what a case was measured. */
export type Conditions = {
  /** ISO 8601. */
  readonly at: string;
  readonly commit?: string;
  readonly machine: Machine;
  readonly threads: number;
  /** How the checkpoint's weights are stored. */
  readonly storage: string;
  readonly prefixCache?: string;
};

/** Every contestant once, one after the other. */
export type Round = { readonly [C in Contestant]?: Measurement & { readonly load: Load } };

export type CaseResult = {
  readonly case: Case;
  readonly conditions: Conditions;
  readonly rounds: readonly Round[];
  /** Why contestants are missing. */
  readonly missing: { readonly [C in Contestant]?: string };
};

/** What is known on a date, by the ids of cases. Measurements may be older. */
export type Results = {
  readonly format: 2;
  readonly date: string;
  readonly cases: Readonly<Record<string, CaseResult>>;
};

export const emptyResults = (date: string): Results => ({ format: 2, date, cases: {} });

/**
 * Newer measurements take the place of older ones of the same case. What was measured on another machine is left out: its
 * ratios don't belong into the same tables.
 */
export function mergeResults(older: Results | undefined, newer: Results): Results {
  const own = Object.values(newer.cases)[0]?.conditions.machine;
  const kept = Object.entries(older?.cases ?? {}).filter(
    ([, { conditions }]) => own === undefined || sameMachine(conditions.machine, own),
  );
  return { ...newer, cases: { ...Object.fromEntries(kept), ...newer.cases } };
}

export const machineOf = ({ cases }: Results): Machine | undefined =>
  Object.values(cases).at(-1)?.conditions.machine;

export const sameMachine = (a: Machine, b: Machine): boolean => a.cpu === b.cpu && a.cores === b.cores;

const FILE = /^\d{4}-\d{2}-\d{2}\.json$/;

/** The latest results in a folder; undefined if there are none of this format. */
export const latestResults = (directory: string): Results | undefined => allResults(directory)[0];

/** The latest results of each machine but the one of `results`, the newest first. */
export function resultsElsewhere(directory: string, results: Results): Results[] {
  const found = [results];
  for (const older of allResults(directory)) {
    const known = found.flatMap((one) => machineOf(one) ?? []);
    const machine = machineOf(older);
    if (machine && !known.some((one) => sameMachine(one, machine))) found.push(older);
  }
  return found.slice(1);
}

/** Results of this format, the latest first. */
function allResults(directory: string): Results[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((name) => FILE.test(name))
    .sort()
    .reverse()
    .map((file) => JSON.parse(readFileSync(join(directory, file), "utf8")) as Results)
    .filter(({ format }) => (format as number) === 2);
}

/** Writes DATE.json, one line per round, with seven digits of each number. */
export function writeResults(directory: string, results: Results): void {
  mkdirSync(directory, { recursive: true });
  const file = join(directory, `${results.date}.json`);
  writeFileSync(`${file}.part`, resultsText(results));
  renameSync(`${file}.part`, file);
}

export function resultsText({ format, date, cases }: Results): string {
  const compact = (value: unknown): string =>
    JSON.stringify(value, (_, part: unknown) =>
      typeof part === "number" && !Number.isInteger(part) ? Number(part.toPrecision(7)) : part,
    );
  const entries = Object.entries(cases).map(([id, { case: one, conditions, rounds, missing }]) =>
    [
      `    ${JSON.stringify(id)}: {`,
      `      "case": ${compact(one)},`,
      `      "conditions": ${compact(conditions)},`,
      `      "missing": ${compact(missing)},`,
      `      "rounds": [`,
      rounds.map((round) => `        ${compact(round)}`).join(",\n"),
      "      ]",
      "    }",
    ].join("\n"),
  );
  return `{\n  "format": ${format},\n  "date": ${JSON.stringify(date)},\n  "cases": {\n${entries.join(",\n")}\n  }\n}\n`;
}

import type { Machine } from "../machine.ts";
import { markdown } from "../markdown.ts";
import type { Bundle, BundleSize } from "./bundle.ts";

type Times = { readonly first: number; readonly median: number };

/** Milliseconds of one case. */
export type Comparison = {
  readonly title: string;
  readonly targets: number;
  readonly graft: Times & { readonly stateDict: number };
  readonly peft?: Times;
};

export type CommandTime = {
  readonly title: string;
  readonly median: number;
  readonly best: number;
  readonly times: readonly number[];
};

export type SelectionReport = {
  readonly date: string;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly modules: number;
  readonly rounds: number;
  readonly comparisons: readonly Comparison[];
  readonly commands: readonly CommandTime[];
  readonly bundle: Bundle;
};

const ms = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const kB = (bytes: number): string => `${(bytes / 1000).toFixed(1)} kB`;
const count = (value: number): string => value.toLocaleString("en");

const matching = ({ comparisons }: SelectionReport): string =>
  markdown([
    [
      "configuration",
      "targets",
      "Graft",
      "first",
      "PEFT's matching",
      "first",
      "PEFT / Graft",
      "adapter's tensors",
    ],
    ...comparisons.map(({ title, targets, graft, peft }) => [
      title,
      count(targets),
      ms(graft.median),
      ms(graft.first),
      peft ? ms(peft.median) : "–",
      peft ? ms(peft.first) : "–",
      peft ? `${(peft.median / graft.median).toFixed(1)}×` : "–",
      ms(graft.stateDict),
    ]),
  ]);

const commandTable = ({ commands }: SelectionReport): string =>
  markdown([
    ["process, start to end", "median", "best"],
    ...commands.map(({ title, median, best }) => [title, ms(median), ms(best)]),
  ]);

function bundleTable({ bundle: { whole, withoutTables, functions, folders } }: SelectionReport): string {
  const row = (title: string, { minified, gzipped }: BundleSize) => [title, kB(minified), kB(gzipped)];
  return [
    markdown([
      ["bundle", "minified", "gzipped"],
      row("everything", whole),
      row("without the Unicode tables of regex/", withoutTables),
      ...Object.entries(functions).map(([name, size]) => row(`${name} alone, without the tables`, size)),
    ]),
    markdown([
      ["part", "minified"],
      ...Object.entries(folders)
        .sort(([, a], [, b]) => b - a)
        .map(([folder, bytes]) => [folder, kB(bytes)]),
    ]),
  ].join("\n\n");
}

/** For a terminal. */
export const describe = (report: SelectionReport): string =>
  [matching(report), commandTable(report), bundleTable(report)].join("\n\n");

/** docs/selection-performance.md. */
export function selectionPage(report: SelectionReport): string {
  const { date, machine, versions, modules, rounds } = report;
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `# Performance of selection

Written by \`npm run bench:selection -- --write\` on ${date}; raw numbers are in benchmarks/results/selection-${date}.json.
Absolute times are this machine's. The ratios are what to compare.

## Against PEFT's matching

A mixture of experts with ${count(modules)} modules. Graft's time is \`selectTargets\`, the whole of it: targets with ranks, reasons
and sizes, counts and warnings. PEFT's is that of its matching functions over the same names alone
(\`check_target_module_exists\`, \`_find_minimal_target_modules\`, \`get_pattern_key\`); it then also makes the layers, and
needs the model. Both chose the same number of targets with the same ranks, or the benchmark would have failed.
"First" is the first selection of a process. The last column is what computing the names and shapes of the adapter's
tensors adds.

${matching(report)}

Contestants take turns, ${rounds} rounds of fresh processes; medians over rounds of the median in a process.

## Commands

From spawning the process to its exit, ${2 * rounds} rounds in turn. The skeleton has ${count(modules)} modules.

${commandTable(report)}

## Size in a browser

\`graftjs/selection\` bundled and minified by esbuild, compressed by gzip -9.

${bundleTable(report)}

Machine: ${machine.cpu}; ${machine.cores} cores; ${machine.system}. Versions: ${names.join(", ")}.
`;
}

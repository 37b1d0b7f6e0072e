import { readFileSync } from "node:fs";
import { cpus, release, type } from "node:os";
import { type Contestant, contestants } from "./measure.ts";
import { selectionsOf } from "./selections.ts";
import { type RowShape, type ShapeName, shapes } from "./shapes.ts";
import type { Case, Comparison, Summary } from "./summary.ts";

const contestantTitles: Readonly<Record<Contestant, string>> = {
  graft: "Graft",
  "torch-float32": "PyTorch float32",
  "torch-bfloat16": "PyTorch bfloat16",
};

/** The machine, as far as numbers depend on it. */
export type Machine = { cpu: string; cores: number; memoryBytes: number; system: string };

export function machine(memoryBytes: number): Machine {
  const cores = cpus();
  return {
    cpu: cpuName() ?? cores[0]?.model ?? "unknown",
    cores: cores.length,
    memoryBytes,
    system: `${type()} ${release()}`,
  };
}

/** On Linux, with the vector extensions that decide most. */
function cpuName(): string | undefined {
  try {
    const info = readFileSync("/proc/cpuinfo", "utf8");
    const name = /^model name\s*: (.*)$/m.exec(info)?.[1];
    const flags = new Set(/^flags\s*: (.*)$/m.exec(info)?.[1]?.split(" "));
    const extensions = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].filter((flag) => flags.has(flag));
    return name && [name, ...extensions].join(", ");
  } catch {
    return undefined;
  }
}

const seconds = (value: number): string => `${value.toFixed(value < 1 ? 3 : 2)} s`;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
const times = (ratio: number): string => `${ratio.toFixed(2)}×`;

/** The batch is named where the shape is measured with several. */
const titleOf = ({ shape, selection, batch }: Case): string =>
  selectionsOf(shape)[selection]!.title + (shapes[shape].batches.length > 1 ? `, batch ${batch}` : "");

/** Markdown tables of a quantity: the contestants' values, and Graft's ratio to each of the others. */
function table(
  comparisons: readonly Comparison[],
  value: (summary: Summary) => string,
  ratio?: { title: string; of: "speedup" | "memory" },
): string {
  const shown = contestants.filter((c) => comparisons[0]!.summaries[c]);
  const others = ratio ? shown.filter((c) => c !== "graft") : [];
  const rows = [
    [
      "adapters",
      ...shown.map((c) => contestantTitles[c]),
      ...others.map((c) => `${ratio!.title} ${contestantTitles[c].slice(8)}`),
    ],
    ...comparisons.map(({ case: of, summaries, ratios }) => [
      titleOf(of),
      ...shown.map((c) => value(summaries[c]!)),
      ...others.map((c) => times(ratios[c]![ratio!.of])),
    ]),
  ];
  return markdown(rows);
}

/** A table whose first row is the head and whose columns but the first are right-aligned. */
function markdown(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(3, ...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (i === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join("\n");
}

/** Three tables for each shape: step, memory, start. `heading` is put before each shape's name. */
export function tables(comparisons: readonly Comparison[], heading = ""): string {
  const names = [...new Set(comparisons.map(({ case: { shape } }) => shape))];
  return names
    .map((name) => {
      const own = comparisons.filter(({ case: { shape } }) => shape === name);
      return `${heading}${name}\n\n${shapeTables(own)}`;
    })
    .join("\n\n");
}

function shapeTables(comparisons: readonly Comparison[]): string {
  return [
    "Time of a step, and how many times as fast as PyTorch Graft is:",
    table(comparisons, ({ stepSeconds }) => seconds(stepSeconds), { title: "speed-up over", of: "speedup" }),
    "Peak resident memory of the process, and Graft's as a share of PyTorch's:",
    table(comparisons, ({ peakRssBytes }) => gigabytes(peakRssBytes), { title: "of", of: "memory" }),
    "From opening the checkpoint to the end of the first step:",
    table(comparisons, ({ firstStepSeconds }) => seconds(firstStepSeconds)),
  ].join("\n\n");
}

export type Conditions = {
  readonly date: string;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly shapes: readonly {
    readonly name: ShapeName;
    readonly row: RowShape;
    readonly batches: readonly number[];
  }[];
  readonly storage: string;
  readonly labelFraction: number;
  readonly threads: number;
  readonly rounds: number;
  readonly steps: number;
  readonly warmup: number;
};

/** What a step's rows are. */
function rowsOf({ name, row, batches }: Conditions["shapes"][number], labelFraction: number): string {
  const rows = `${name}: ${batches.join(" or ")} ×`;
  if (row.kind === "picture")
    return `${rows} one random picture of ${row.size} × ${row.size} pixels with a prompt of ${row.prompt} tokens, and ${row.target} tokens to write`;
  const labelled = labelFraction === 1 ? "every token" : `the last ${labelFraction * 100} % of each row`;
  return `${rows} ${row.sequence} tokens, ${labelled} labelled`;
}

/** docs/performance.md. */
export function performancePage(comparisons: readonly Comparison[], c: Conditions): string {
  const versions = Object.entries(c.versions).map(([name, version]) => `${name} ${version}`);
  const { cpu, cores, memoryBytes, system } = c.machine;
  return `# Performance

Written by \`npm run bench -- --write\` on ${c.date}; the numbers of every step are in benchmarks/results/${c.date}.json.
Absolute times are this machine's. The ratios are what to compare.

${tables(comparisons, "## ")}

## What was done

- A step is forward, backward and AdamW on one batch, without gradient checkpointing and dropout, on a random checkpoint of
  the shape named, stored as ${c.storage}. Graft computes in float32. PyTorch computes in the dtype named; transformers and
  PEFT have their defaults (sdpa attention, adapters in float32).
- A batch is, for
${c.shapes.map((shape) => `  - ${rowsOf(shape, c.labelFraction)}`).join("\n")}
- Every measurement is a process of its own. Contestants take turns, ${c.rounds} ${c.rounds === 1 ? "round" : "rounds"}; in each, ${c.warmup} steps warm up and ${c.steps} count.
  A time is the median over rounds of the median over steps.
- All train the same number of parameters, and their first losses agree (within 1e-4 of float32, 1e-2 of bfloat16):
  otherwise the benchmark fails.
- Memory is the largest resident set of the whole process, as the system counts it. Loading excludes imports.

Machine: ${cpu}; ${cores} cores, ${c.threads} threads used; ${gigabytes(memoryBytes)} of memory; ${system}.
Versions: ${versions.join(", ")}.
`;
}

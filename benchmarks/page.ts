import type { Chart } from "./charts.ts";
import { disagreement } from "./compare.ts";
import { type Contestant, titles } from "./contestants.ts";
import { BUSY_LIMIT } from "./machine.ts";
import { gigabytes, markdown } from "./markdown.ts";
import type { CaseResult, Results } from "./results.ts";
import { aimsElsewhere, aimsTable, sections } from "./tables.ts";

/** docs/performance.md. */
export function performancePage(
  results: Results,
  charts: readonly Chart[],
  elsewhere: readonly Results[] = [],
): string {
  const all = Object.values(results.cases);
  const images = charts.map(({ file, alt }) => `![${alt}](${file})`).join("\n\n");
  const body = sections(results)
    .map(({ title, body: tables }) => `## ${title}\n\n${tables}`)
    .join("\n\n");
  return `# Performance

Graft against PyTorch with transformers and PEFT: the same work, on the same machine. Written by \`npm run bench -- --write\`
from benchmarks/results/${results.date}.json, which has the numbers of every step. Absolute times are this machine's. The
ratios are what to compare: above 1× Graft is faster, or for memory below 1× smaller.

A number with a range is a median of several rounds, with the least and the greatest of them. A ratio is taken in each round
apart, and the median is of these ratios.

## What Graft sets out to reach

${aimsTable(results)}

${images}

${elsewhereText(results, elsewhere)}${body}

## What was done

- Checkpoints are random, of the shape named (weights N(0, 0.02²), norms 1, biases 0), stored as ${unique(all, ({ conditions }) => conditions.storage)}. The adapter is random
  too, and the same for all. A batch of text is rows × tokens, each token labelled where nothing else is said. A row of
  Florence-2 is one random picture of 768 × 768 pixels with a prompt of 10 tokens, and 32 tokens to write.
- A step is forward, backward and AdamW on one batch, without gradient checkpointing, clipping and dropout. PyTorch is as
  transformers and PEFT have it by default: sdpa attention, adapters in float32, the base model in the dtype named, and
  the vocabulary scored at every position. Graft trains through its Trainer${prefixCacheText(all)}; with
  "int8" the frozen weights have 8 bits, and adapters, norms and the loss are float32 as ever. Its codes are made once and
  kept; where they are not there yet, making them counts as loading.
- In a run of one epoch, two steps warm up; the time of a step is the median of the others. In a run of several epochs
  everything counts from the end of loading (of PyTorch's model; of Graft's session) to the end of the last step, the
  computation of a frozen prefix and torch.compile's compiling included. A step of the later epochs is their median.
- Generation is greedy, with an adapter that is not merged, and no text ends early. The first repeat warms up.
- Every measurement is a process of its own. Contestants of a case follow each other in each round, so that they meet the
  machine in the same state.
- Whoever is compared trains the same number of parameters, and the losses of all steps agree (within 1e-3 of float32;
  within 2e-2 of bfloat16 and int8). Otherwise the tables leave the comparison out.
- Memory is the largest resident set of the whole process, as the system counts it. Loading excludes imports.

## Repeat it

    npm run bench -- --write                # all of it, one round
    npm run bench -- --aims --rounds 3      # the first table alone
    npm run bench -- --list                 # the cases; --only takes any of their names
    npm run bench -- --only layers --write  # measure a part again, keep the rest

PyTorch is taken from GRAFT_PYTHON or from .venv-reference (\`scripts/reference-venv.sh .venv-reference\` makes it). The machine
should have nothing else to do: the benchmark looks before each measurement, and warns.

## When and where

${provenance(all)}

${notes(all)}${machineText(all)}
`;
}

/** How much the ratios depend on the processor. */
const elsewhereText = (results: Results, others: readonly Results[]): string =>
  others.length === 0
    ? ""
    : `## On other processors\n\nThe same work, as it was measured elsewhere, some of it before later changes.\n\n${aimsElsewhere(results, others)}\n\n`;

const unique = (all: readonly CaseResult[], read: (result: CaseResult) => string): string =>
  [...new Set(all.map(read))].join(" or ");

function prefixCacheText(all: readonly CaseResult[]): string {
  const modes = new Set(all.flatMap(({ conditions }) => conditions.prefixCache ?? []));
  return modes.size === 0
    ? ""
    : `, with \`prefixCache\` ${[...modes].join(" or ")} in runs of several epochs`;
}

/** When each part was measured, on which commit, and whether the machine was quiet. */
function provenance(all: readonly CaseResult[]): string {
  const rows = new Map<
    string,
    { days: Set<string>; commits: Set<string>; rounds: Set<number>; busy: number; cases: number }
  >();
  for (const { case: one, conditions, rounds } of all)
    for (const part of one.parts) {
      const row = rows.get(part) ?? {
        ...{ days: new Set(), commits: new Set(), rounds: new Set(), busy: 0, cases: 0 },
      };
      row.cases++;
      row.days.add(conditions.at.slice(0, 10));
      row.commits.add(conditions.commit ?? "unknown");
      row.rounds.add(rounds.length);
      const loads = rounds.flatMap((round) => Object.values(round).map(({ load }) => load.busy));
      row.busy = Math.max(row.busy, ...loads);
      rows.set(part, row);
    }
  return markdown([
    ["part", "cases", "rounds", "measured", "commit", "most that others used of the cores"],
    ...[...rows].map(([part, { days, commits, rounds, busy, cases }]) => [
      part,
      String(cases),
      [...rounds].join(", "),
      [...days].join(", "),
      [...commits].join(", "),
      `${Math.round(busy * 100)} %${busy > BUSY_LIMIT ? " (not quiet)" : ""}`,
    ]),
  ]);
}

/** What is missing in the tables, and why. */
export function notes(all: readonly CaseResult[]): string {
  const reasons = new Map<string, string[]>();
  for (const result of all) {
    const ofCase = Object.entries(result.missing).map(
      ([name, reason]) => `${titles[name as Contestant]}: ${reason}`,
    );
    const disagreeing = result.case.contestants.flatMap((name) => {
      const problem = disagreement(result, name);
      return problem === undefined ? [] : [`${titles[name]}: ${problem}`];
    });
    for (const reason of [...ofCase, ...disagreeing])
      reasons.set(reason, [...(reasons.get(reason) ?? []), result.case.id]);
  }
  if (reasons.size === 0) return "";
  const lines = [...reasons].map(([reason, ids]) => `- ${reason} (${ids.join(", ")})`);
  return `Left out of the tables:\n\n${lines.join("\n")}\n\n`;
}

function machineText(all: readonly CaseResult[]): string {
  const last = all.at(-1);
  if (!last) return "";
  const { machine, threads } = last.conditions;
  const versions = Object.assign(
    {},
    ...all.flatMap(({ rounds }) =>
      rounds.flatMap((round) => Object.values(round).map((run) => run.versions)),
    ),
  ) as Record<string, string>;
  const list = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `Machine: ${machine.cpu}; ${machine.cores} cores, ${threads} threads used; ${gigabytes(machine.memoryBytes)} of memory; ${machine.system}.
Versions: ${list.join(", ")}.`;
}

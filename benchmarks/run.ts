import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, totalmem } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { makeCheckpoint, makeRows } from "./make-checkpoint.ts";
import { type Contestant, contestants, findPython, type Measurement, measure, root } from "./measure.ts";
import { type Conditions, machine, performancePage, tables } from "./report.ts";
import { selectionNames, selectionsOf } from "./selections.ts";
import { type RowShape, type ShapeName, shapes } from "./shapes.ts";
import { type Case, compare } from "./summary.ts";

/** The toys are only for --quick. */
const real = ["smollm2-135m", "florence2-base"] as const;

const HELP = `npm run bench [-- options]

Measures a training step of Graft and of PyTorch + PEFT, and prints Graft's ratios to PyTorch.
PyTorch is taken from GRAFT_PYTHON or .venv-reference; without either only Graft is measured.

  --only NAME           a shape (${real.join(", ")}) or a selection
                        (${selectionNames.join(", ")}); may be repeated (default: all)
  --quick               toy models, one round, three steps: shows that the benchmark works, no more
  --rounds N            fresh processes per contestant and case (2)
  --steps N             timed steps per process (3)
  --warmup N            steps before those (2)
  --threads N           (${availableParallelism()}, what this process may use)
  --batch N             rows per step (SmolLM2: 4; Florence-2: 1, and 2 where the vision tower is frozen)
  --sequence N          tokens of a row of text (256)
  --label-fraction F    share of each row of text, at its end, that carries labels (1)
  --storage DTYPE       bfloat16 (as SmolLM2 is published) or float32
  --json                print one JSON document instead of tables
  --write               write docs/performance.md and benchmarks/results/DATE.json
`;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** A mistake in how the benchmark was called. */
class UsageError extends Error {}

function settings() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true },
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      steps: { type: "string" },
      warmup: { type: "string" },
      threads: { type: "string" },
      batch: { type: "string" },
      sequence: { type: "string" },
      "label-fraction": { type: "string", default: "1" },
      storage: { type: "string", default: "bfloat16" },
      json: { type: "boolean", default: false },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const { quick, json, write, help, storage } = values;
  type Whole = "rounds" | "steps" | "warmup" | "threads" | "batch" | "sequence";
  const given = (name: Whole): number | undefined => {
    if (values[name] === undefined) return undefined;
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < (name === "warmup" ? 0 : 1))
      throw new UsageError(`--${name} takes a whole number, got ${values[name]}.`);
    return value;
  };
  const whole = (name: Whole, usual: number): number => given(name) ?? usual;
  const labelFraction = Number(values["label-fraction"]);
  if (!(labelFraction > 0 && labelFraction <= 1))
    throw new UsageError(`--label-fraction is above 0 and at most 1, got ${values["label-fraction"]}.`);
  if (storage !== "bfloat16" && storage !== "float32")
    throw new UsageError(`--storage is bfloat16 or float32, got ${storage}.`);
  const only = values.only ?? [];
  const names: readonly string[] = [...real, ...selectionNames];
  for (const name of only)
    if (!names.includes(name)) throw new UsageError(`--only is one of ${names.join(", ")}, got ${name}.`);
  if (write && quick) throw new UsageError("--write keeps real numbers; --quick has none.");
  if (write && values.only) throw new UsageError("--write keeps the whole comparison; leave out --only.");
  const cases = quick ? quickCases : casesOf(only, given("batch"));
  if (cases.length === 0) throw new UsageError(`--only ${only.join(" --only ")} leaves nothing to measure.`);
  return {
    cases,
    rounds: whole("rounds", quick ? 1 : 2),
    steps: whole("steps", quick ? 2 : 3),
    warmup: whole("warmup", quick ? 1 : 2),
    threads: whole("threads", availableParallelism()),
    sequence: given("sequence"),
    storage: storage as "bfloat16" | "float32",
    labelFraction,
    quick,
    json,
    write,
    help,
  };
}

/** One selection of pictures is enough to see that it works. */
const quickCases: readonly Case[] = [
  ...Object.keys(selectionsOf("toy")).map((selection) => ({ shape: "toy" as const, selection, batch: 4 })),
  { shape: "florence2-toy", selection: "top-qv", batch: 2 },
];

/** Named shapes with named selections, or all of either. */
function casesOf(only: readonly string[], batch: number | undefined): Case[] {
  const wanted = (name: string, all: readonly string[]): boolean =>
    only.includes(name) || !only.some((other) => all.includes(other));
  return real
    .filter((shape) => wanted(shape, real))
    .flatMap((shape) =>
      Object.keys(selectionsOf(shape))
        .filter((selection) => wanted(selection, selectionNames))
        .flatMap((selection) =>
          (batch === undefined
            ? (selectionsOf(shape)[selection]!.batches ?? shapes[shape].batches)
            : [batch]
          ).map((rows) => ({
            shape,
            selection,
            batch: rows,
          })),
        ),
    );
}

/** What the rows of a shape are, with the length that was asked for. */
function rowShape(shape: ShapeName, sequence: number | undefined): RowShape {
  const { row } = shapes[shape];
  return row.kind === "text" ? { ...row, sequence: sequence ?? row.sequence } : row;
}

async function main(): Promise<void> {
  const options = settings();
  if (options.help) return console.log(HELP);
  const { cases, rounds, steps, warmup, threads, sequence, storage, labelFraction } = options;

  const found = findPython();
  const python = "python" in found ? found.python : undefined;
  if ("reason" in found) say(`No PyTorch to compare with: ${found.reason}. Measuring Graft alone.`);
  if (!python && options.write) throw new UsageError("--write needs PyTorch to compare with.");

  const cache = join(root, "node_modules", ".cache", "graft-bench");
  const used = [...new Set(cases.map(({ shape }) => shape))].map((name) => {
    const batches = cases.filter(({ shape }) => shape === name).map(({ batch }) => batch);
    return { name, row: rowShape(name, sequence), batches: [...new Set(batches)] };
  });
  const files = new Map<ShapeName, { model: string; rows: string }>();
  for (const { name: shape, row, batches } of used) {
    say(`Checkpoint: ${shape}, ${storage} (made once, kept in ${relative(root, cache)}) …`);
    const model = await makeCheckpoint(cache, { shape, storage, seed: 0 });
    const count = (row.kind === "text" ? 8 : 2) * Math.max(...batches);
    files.set(shape, { model, rows: makeRows(cache, { shape, row, count, labelFraction, seed: 0 }) });
  }

  const taking = contestants.filter((contestant) => contestant === "graft" || python !== undefined);
  const measured = new Map<string, Measurement[]>();
  const key = ({ shape, selection, batch }: Case, contestant: Contestant) =>
    `${shape} ${selection} ${batch} ${contestant}`;
  for (let round = 1; round <= rounds; round++)
    for (const one of cases)
      for (const contestant of taking) {
        const { shape, selection, batch } = one;
        const lora = selectionsOf(shape)[selection]!.lora(shapes[shape].config);
        const work = { ...files.get(shape)!, lora, batch, threads, steps: warmup + steps };
        const result = await measure(contestant, python ?? "", work);
        const all = measured.get(key(one, contestant)) ?? [];
        measured.set(key(one, contestant), [...all, result]);
        const shown = result.stepSeconds.map((value) => value.toFixed(2)).join(" ");
        say(
          `round ${round}/${rounds}  ${`${shape} ${selection} × ${batch}`.padEnd(30)} ${contestant.padEnd(14)} ` +
            `steps ${shown} s, peak ${(result.peakRssBytes / 1e9).toFixed(2)} GB`,
        );
      }

  const series = (one: Case) =>
    taking.map((contestant) => ({ case: one, contestant, rounds: measured.get(key(one, contestant))! }));
  const comparisons = cases.map((one) => compare(series(one), warmup));
  const versions = Object.assign({}, ...[...measured.values()].map(([first]) => first!.versions));
  const conditions: Conditions = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(totalmem()),
    versions,
    shapes: used,
    storage,
    labelFraction,
    threads,
    rounds,
    steps,
    warmup,
  };
  const document = { conditions, comparisons, measurements: cases.flatMap(series) };
  if (options.json) console.log(JSON.stringify(document, null, 2));
  else {
    if (options.quick) console.log("Toy models: these numbers only show that the benchmark works.\n");
    console.log(tables(comparisons));
  }
  if (options.write) {
    const results = join(root, "benchmarks", "results");
    mkdirSync(results, { recursive: true });
    const file = join(results, `${conditions.date}.json`);
    writeFileSync(file, JSON.stringify(document));
    const biome = createRequire(import.meta.url).resolve("@biomejs/biome/bin/biome");
    spawnSync(process.execPath, [biome, "format", "--write", file], { cwd: root, stdio: "ignore" });
    writeFileSync(join(root, "docs", "performance.md"), performancePage(comparisons, conditions));
    say("Wrote docs/performance.md and the numbers behind it.");
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Error)) throw error;
  const usage =
    error instanceof UsageError || (error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS");
  say(`bench: ${error.message}${usage ? "\nTry: npm run bench -- --help" : ""}`);
  process.exitCode = usage ? 2 : 1;
}

import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, totalmem } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { makeCheckpoint, makeTokens } from "./make-checkpoint.ts";
import {
  type Contestant,
  contestants,
  findPython,
  type Measurement,
  measure,
  root,
  type Selection,
  selections,
} from "./measure.ts";
import { type Conditions, machine, performancePage, tables } from "./report.ts";
import { shapes } from "./shapes.ts";
import { compare } from "./summary.ts";

const HELP = `npm run bench [-- options]

Measures a training step of Graft and of PyTorch + PEFT, and prints Graft's ratios to PyTorch.
PyTorch is taken from GRAFT_PYTHON or .venv-reference; without either only Graft is measured.

  --only SELECTION      ${selections.join(", ")}; may be repeated (default: all)
  --quick               a toy model, one round, three steps: shows that the benchmark works, no more
  --rounds N            fresh processes per contestant and selection (2)
  --steps N             timed steps per process (3)
  --warmup N            steps before those (2)
  --threads N           (${availableParallelism()}, what this process may use)
  --batch N, --sequence N    (4, 256)
  --label-fraction F    share of each row, at its end, that carries labels (1)
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
  const whole = (name: "rounds" | "steps" | "warmup" | "threads" | "batch" | "sequence", usual: number) => {
    const value = values[name] === undefined ? usual : Number(values[name]);
    if (!Number.isInteger(value) || value < (name === "warmup" ? 0 : 1))
      throw new UsageError(`--${name} takes a whole number, got ${values[name]}.`);
    return value;
  };
  const labelFraction = Number(values["label-fraction"]);
  if (!(labelFraction > 0 && labelFraction <= 1))
    throw new UsageError(`--label-fraction is above 0 and at most 1, got ${values["label-fraction"]}.`);
  if (storage !== "bfloat16" && storage !== "float32")
    throw new UsageError(`--storage is bfloat16 or float32, got ${storage}.`);
  const only = values.only ?? [...selections];
  for (const name of only)
    if (!(selections as readonly string[]).includes(name))
      throw new UsageError(`--only is one of ${selections.join(", ")}, got ${name}.`);
  if (write && quick) throw new UsageError("--write keeps real numbers; --quick has none.");
  if (write && values.only) throw new UsageError("--write keeps the whole comparison; leave out --only.");
  return {
    chosen: selections.filter((selection) => only.includes(selection)),
    shape: quick ? ("toy" as const) : ("smollm2-135m" as const),
    rounds: whole("rounds", quick ? 1 : 2),
    steps: whole("steps", quick ? 2 : 3),
    warmup: whole("warmup", quick ? 1 : 2),
    threads: whole("threads", availableParallelism()),
    batch: whole("batch", 4),
    sequence: whole("sequence", quick ? 64 : 256),
    storage: storage as "bfloat16" | "float32",
    labelFraction,
    json,
    write,
    help,
  };
}

async function main(): Promise<void> {
  const options = settings();
  if (options.help) return console.log(HELP);
  const { chosen, shape, rounds, steps, warmup, threads, batch, sequence, storage, labelFraction } = options;

  const found = findPython();
  const python = "python" in found ? found.python : undefined;
  if ("reason" in found) say(`No PyTorch to compare with: ${found.reason}. Measuring Graft alone.`);
  if (!python && options.write) throw new UsageError("--write needs PyTorch to compare with.");

  const cache = join(root, "node_modules", ".cache", "graft-bench");
  say(`Checkpoint: ${shape}, ${storage} (made once, kept in ${relative(root, cache)}) …`);
  const model = await makeCheckpoint(cache, { shape, storage, seed: 0 });
  const tokens = join(cache, `tokens-${shape}-${sequence}-${labelFraction}.json`);
  const rows = makeTokens(8 * batch, sequence, {
    vocabSize: shapes[shape].vocab_size,
    labelFraction,
    seed: 0,
  });
  writeFileSync(tokens, JSON.stringify(rows));

  const taking = contestants.filter((contestant) => contestant === "graft" || python !== undefined);
  const measured = new Map<string, Measurement[]>();
  const key = (selection: Selection, contestant: Contestant) => `${selection} ${contestant}`;
  for (let round = 1; round <= rounds; round++)
    for (const selection of chosen)
      for (const contestant of taking) {
        const work = { model, tokens, selection, batch, sequence, threads, steps: warmup + steps };
        const result = await measure(contestant, python ?? "", work);
        const all = measured.get(key(selection, contestant)) ?? [];
        measured.set(key(selection, contestant), [...all, result]);
        const shown = result.stepSeconds.map((value) => value.toFixed(2)).join(" ");
        say(
          `round ${round}/${rounds}  ${selection.padEnd(12)} ${contestant.padEnd(14)} ` +
            `steps ${shown} s, peak ${(result.peakRssBytes / 1e9).toFixed(2)} GB`,
        );
      }

  const series = (selection: Selection) =>
    taking.map((contestant) => ({
      selection,
      contestant,
      rounds: measured.get(key(selection, contestant))!,
    }));
  const comparisons = chosen.map((selection) => compare(series(selection), warmup));
  const versions = Object.assign({}, ...[...measured.values()].map(([first]) => first!.versions));
  const conditions: Conditions = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(totalmem()),
    versions,
    shape,
    storage,
    batch,
    sequence,
    labelFraction,
    threads,
    rounds,
    steps,
    warmup,
  };
  const document = { conditions, comparisons, measurements: chosen.flatMap(series) };
  if (options.json) console.log(JSON.stringify(document, null, 2));
  else {
    if (shape === "toy") console.log("A toy model: these numbers only show that the benchmark works.\n");
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

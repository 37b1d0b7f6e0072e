/** npm run bench:selection [-- options]: selection against PEFT's own matching, `graft select` and `graft inspect` start to end, sizes. */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { machine } from "../machine.ts";
import { findPython, root } from "../measure.ts";
import { measureBundle } from "./bundle.ts";
import { cases, largeTree, smallTree } from "./cases.ts";
import { makeIndex } from "./make-index.ts";
import { type CommandTime, type Comparison, describe, selectionPage } from "./report.ts";
import { skeletonOf } from "./skeleton.ts";

const HELP = `npm run bench:selection [-- options]

Measures selection on a mixture of experts with 45,457 modules, against PEFT's own matching functions on the same
names, and the commands that a person runs, each as a process from start to end. Uses the build: npm run build.
Python with PEFT is taken from GRAFT_PYTHON or .venv-reference; without either Graft alone is measured.

  --quick       a small tree, two rounds: shows that the benchmark works, no more
  --rounds N    fresh processes of each contestant, in turn (5)
  --json        print one JSON document instead of tables
  --write       write docs/selection-performance.md and benchmarks/results/selection-DATE.json
`;

/** A copy of the build, so that building again while this runs changes nothing. */
const build = join(root, "out", `bench-selection-${process.pid}`);
const cli = join(build, "cli/main.js");
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

type ChildResult = {
  readonly modules?: number;
  readonly versions?: Record<string, string>;
  readonly cases: readonly {
    targets: number;
    ranks: number;
    first: number;
    median: number;
    stateDict?: number;
  }[];
};

function child(command: string, args: readonly string[], input: unknown): ChildResult {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    input: JSON.stringify(input),
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    env: { ...process.env, HF_HUB_OFFLINE: "1" },
  });
  if (error) throw error;
  if (status !== 0)
    throw new Error(`${command} ${args.at(-1)} failed (exit ${status}):\n${stderr.slice(-2000)}`);
  return JSON.parse(stdout) as ChildResult;
}

/** Interleaved rounds of fresh processes; the first selection of a process and the median of its later ones. */
function compareMatching(python: string | undefined, quick: boolean, rounds: number) {
  const tree = quick ? smallTree() : largeTree();
  const names = tree.modules.map(({ name }) => name);
  const linear = tree.modules
    .filter(({ kind, name }) => kind === "linear" && name !== "lm_head")
    .map(({ name }) => name);
  const graft: ChildResult[] = [];
  const peft: ChildResult[] = [];
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}: selection`);
    graft.push(
      child(process.execPath, ["--import", "tsx", "benchmarks/selection/graft-select.ts"], {
        build,
        quick,
        repeats: 7,
      }),
    );
    if (python !== undefined)
      peft.push(
        child(python, ["benchmarks/selection/peft_select.py"], {
          names,
          linear,
          cases: cases.map(({ config }) => config),
          repeats: 3,
        }),
      );
  }
  const comparisons = cases.map(({ title }, i): Comparison => {
    const of = (results: readonly ChildResult[], key: "first" | "median" | "stateDict") =>
      median(results.map(({ cases: found }) => found[i]![key] ?? 0));
    const [ours] = graft;
    const [theirs] = peft;
    const same = ours!.cases[i]!;
    if (
      theirs !== undefined &&
      (theirs.cases[i]!.targets !== same.targets || theirs.cases[i]!.ranks !== same.ranks)
    )
      throw new Error(
        `${title}: Graft chose ${JSON.stringify(same)}, PEFT ${JSON.stringify(theirs.cases[i])}.`,
      );
    return {
      title,
      targets: same.targets,
      graft: { first: of(graft, "first"), median: of(graft, "median"), stateDict: of(graft, "stateDict") },
      ...(theirs === undefined ? {} : { peft: { first: of(peft, "first"), median: of(peft, "median") } }),
    };
  });
  return { comparisons, modules: names.length, versions: peft[0]?.versions ?? {}, raw: { graft, peft } };
}

/** Whole processes, interleaved; the time from spawning to exit. */
function timeCommands(
  commands: readonly (readonly [title: string, args: readonly string[]])[],
  rounds: number,
) {
  const times = commands.map((): number[] => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, [title, args]] of commands.entries()) {
      const start = performance.now();
      const { status, stderr } = spawnSync(process.execPath, args, {
        cwd: root,
        encoding: "utf8",
        maxBuffer: 2 ** 30,
      });
      times[i]!.push(performance.now() - start);
      if (status !== 0) throw new Error(`${title} failed (exit ${status}):\n${stderr.slice(-2000)}`);
    }
  return commands.map(
    ([title], i): CommandTime => ({
      title,
      median: median(times[i]!),
      best: Math.min(...times[i]!),
      times: times[i]!,
    }),
  );
}

async function measureCommands(quick: boolean, rounds: number): Promise<CommandTime[]> {
  const folder = mkdtempSync(join(tmpdir(), "graft-bench-"));
  try {
    const text = JSON.stringify(skeletonOf(quick ? smallTree() : largeTree()));
    const plain = join(folder, "moe.json");
    const packed = join(folder, "moe.json.gz");
    writeFileSync(plain, text);
    writeFileSync(packed, gzipSync(text));
    const index = join(folder, "index");
    await makeIndex(index, { tensors: quick ? 3_000 : 100_000 });
    const qv = ["--target-modules", "q_proj,v_proj"];
    return timeCommands(
      [
        ["node, doing nothing", ["-e", "0"]],
        ["graft --version", [cli, "--version"]],
        ["graft select, q_proj and v_proj, skeleton .json", [cli, "select", plain, ...qv]],
        ["the same, .json.gz", [cli, "select", packed, ...qv]],
        ["the same, --json", [cli, "select", plain, ...qv, "--json"]],
        ["graft select, all-linear, .json", [cli, "select", plain, "--target-modules", "all-linear"]],
        [
          "graft select, q_proj and v_proj, a small model's config.json",
          [cli, "select", "models/tiny-llama", ...qv],
        ],
        [
          `graft inspect, index of ${quick ? "3,000" : "100,000"} tensors in 32 shards`,
          [cli, "inspect", index],
        ],
        ["the same, --json", [cli, "inspect", index, "--json"]],
      ],
      rounds,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      json: { type: "boolean", default: false },
      write: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const { quick, json, write, help } = values;
  if (help) return console.log(HELP);
  const rounds = Number(values.rounds ?? (quick ? 2 : 5));
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new TypeError(`--rounds takes a whole number above 0, got ${values.rounds}.`);
  if (write && quick) throw new TypeError("--write keeps real numbers; --quick has none.");
  const dist = join(root, "dist");
  if (!existsSync(join(dist, "cli/main.js")))
    throw new TypeError("dist/ is missing. Build first: npm run build.");
  cpSync(dist, build, { recursive: true });
  process.on("exit", () => rmSync(build, { recursive: true, force: true }));

  const found = findPython();
  if ("reason" in found) say(`PEFT is skipped: ${found.reason}. Measuring Graft alone.`);
  const python = "python" in found ? found.python : undefined;
  const { comparisons, modules, versions, raw } = compareMatching(python, quick, rounds);
  say("commands, start to end");
  const commands = await measureCommands(quick, 2 * rounds);
  say("bundle");
  const bundle = await measureBundle(build);
  const report = {
    date: new Date().toISOString().slice(0, 10),
    machine: machine(),
    versions: { node: process.version.slice(1), ...versions },
    modules,
    rounds,
    comparisons,
    commands,
    bundle,
  };
  if (json) console.log(JSON.stringify(report, null, 2));
  else console.log(describe(report));
  if (!write) return;
  const results = join(root, "benchmarks/results");
  mkdirSync(results, { recursive: true });
  const file = join(results, `selection-${report.date}.json`);
  writeFileSync(file, `${JSON.stringify({ ...report, raw }, null, 2)}\n`);
  writeFileSync(join(root, "docs/selection-performance.md"), selectionPage(report));
  say(`wrote ${relative(root, file)} and docs/selection-performance.md`);
}

main().catch((error: unknown) => {
  say(error instanceof TypeError ? error.message : ((error as Error).stack ?? String(error)));
  process.exitCode = error instanceof TypeError ? 2 : 1;
});

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { aimedCases } from "./aims.ts";
import { type Case, cases, parts, quickCases } from "./cases.ts";
import { type Contestant, contestants } from "./contestants.ts";
import type { Storage } from "./make-checkpoint.ts";
import { selectionNames } from "./selections.ts";
import type { ShapeName } from "./shapes.ts";

const shapeNames = [...new Set(cases.map(({ shape }) => shape))];

export const HELP = `npm run bench [-- options]

Measures Graft against PyTorch + PEFT, on random checkpoints of published models' shapes, and prints the ratios.
Every measurement is a process of its own; contestants take turns. PyTorch is taken from GRAFT_PYTHON or .venv-reference;
without either Graft is measured alone.

  --only NAME           what to measure; may be repeated (default: all)
                          aims, what Graft sets out to reach; or a part: ${parts.join(", ")}
                          of a shape: ${shapeNames.join(", ")}
                          of a selection: ${selectionNames.join(", ")}
                          or a case as --list has it
  --aims                the same as --only aims
  --list                print the cases, and measure nothing
  --quick               toy models, one round, every kind of case: shows that the benchmark works, no more
  --contestants LIST    of ${contestants.join(", ")} (default: all)
  --rounds N            fresh processes per contestant and case (1)
  --threads N           (${availableParallelism()}, what this process may use)
  --storage DTYPE       of the checkpoints: bfloat16 (as SmolLM2 is published) or float32
  --prefix-cache MODE   the Trainer's option, in runs of several epochs (default: the Trainer's)
  --json                print one JSON document instead of tables
  --write               keep the numbers in benchmarks/results/DATE.json, where they replace older ones of the same cases;
                        then write docs/performance.md and its charts from that file
  --render              write docs/performance.md and its charts again from the latest file, and measure nothing
`;

/** A mistake in how the benchmark was called. */
export class UsageError extends Error {}

export type Options = {
  readonly cases: readonly Case[];
  readonly contestants: readonly Contestant[];
  readonly rounds: number;
  readonly threads: number;
  readonly storage: Storage;
  readonly prefixCache: string | undefined;
  readonly quick: boolean;
  readonly json: boolean;
  readonly write: boolean;
  readonly action: "measure" | "help" | "list" | "render";
};

/** @throws UsageError for options that are wrong or contradict another. */
export function readOptions(args?: readonly string[]): Options {
  const { values } = parseArgs({
    ...(args && { args: [...args] }),
    options: {
      only: { type: "string", multiple: true, default: [] },
      aims: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      contestants: { type: "string" },
      rounds: { type: "string", default: "1" },
      threads: { type: "string", default: String(availableParallelism()) },
      storage: { type: "string", default: "bfloat16" },
      "prefix-cache": { type: "string" },
      json: { type: "boolean", default: false },
      write: { type: "boolean", default: false },
      render: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const { quick, json, write, storage } = values;
  const whole = (name: "rounds" | "threads"): number => {
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < 1)
      throw new UsageError(`--${name} takes a whole number of at least 1, got ${values[name]}.`);
    return value;
  };
  if (storage !== "bfloat16" && storage !== "float32")
    throw new UsageError(`--storage is bfloat16 or float32, got ${storage}.`);
  const only = [...values.only, ...(values.aims ? ["aims"] : [])];
  if (quick && only.length > 0) throw new UsageError("--quick has cases of its own; leave out --only.");
  if (quick && write) throw new UsageError("--write keeps real numbers; --quick has none.");
  if (write && values.contestants !== undefined)
    throw new UsageError("--write keeps whole comparisons; leave out --contestants.");
  return {
    cases: quick ? quickCases : casesNamed(only),
    contestants: contestantsNamed(values.contestants),
    rounds: whole("rounds"),
    threads: whole("threads"),
    storage,
    prefixCache: values["prefix-cache"],
    ...{ quick, json, write },
    action: values.help ? "help" : values.list ? "list" : values.render ? "render" : "measure",
  };
}

function contestantsNamed(list: string | undefined): readonly Contestant[] {
  if (list === undefined) return contestants;
  const names = list.split(",");
  for (const name of names)
    if (!contestants.includes(name as Contestant))
      throw new UsageError(`--contestants is of ${contestants.join(", ")}, got ${name}.`);
  if (!names.includes("graft"))
    throw new UsageError("--contestants has graft: the others are compared with it.");
  return contestants.filter((contestant) => names.includes(contestant));
}

/** Cases of the parts named (or of all), of the shapes named (or of all), of the selections named (or of all). */
export function casesNamed(only: readonly string[]): readonly Case[] {
  const groups: readonly { names: readonly string[]; of: (one: Case) => readonly string[] }[] = [
    {
      names: ["aims", ...parts, ...cases.map(({ id }) => id)],
      of: (one) => [...one.parts, one.id, ...(aimedCases.includes(one) ? ["aims"] : [])],
    },
    { names: shapeNames satisfies readonly ShapeName[], of: ({ shape }) => [shape] },
    { names: selectionNames, of: ({ selection }) => [selection] },
  ];
  const known = groups.flatMap(({ names }) => names);
  for (const name of only)
    if (!known.includes(name))
      throw new UsageError(
        `--only is aims, one of ${[...parts, ...shapeNames, ...selectionNames].join(", ")}, or a case, got ${name}.`,
      );
  const left = cases.filter((one) =>
    groups.every(({ names, of }) => {
      const wanted = only.filter((name) => names.includes(name));
      return wanted.length === 0 || of(one).some((name) => wanted.includes(name));
    }),
  );
  if (left.length === 0) throw new UsageError(`--only ${only.join(" --only ")} leaves nothing to measure.`);
  return left;
}

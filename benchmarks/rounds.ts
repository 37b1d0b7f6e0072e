import { join } from "node:path";
import { type Case, isTraining } from "./cases.ts";
import { disagreement } from "./compare.ts";
import { type Contestant, isNeeded, isTorch } from "./contestants.ts";
import { BUSY_LIMIT, currentCommit, currentLoad, type Load, machine } from "./machine.ts";
import { makeAdapter, makeCheckpoint } from "./make-checkpoint.ts";
import { makeRows } from "./make-rows.ts";
import { compileProblem, type Job, type Measurement, measure, root } from "./measure.ts";
import type { Options } from "./options.ts";
import { stepSeconds } from "./quantities.ts";
import type { CaseResult, Conditions, Round } from "./results.ts";
import { selectionOf } from "./selections.ts";

type Setting = Pick<Options, "cases" | "contestants" | "rounds" | "threads" | "storage" | "prefixCache"> & {
  readonly python: string | undefined;
  readonly say: (line: string) => void;
};

/**
 * Measures every case with every contestant, round after round, and yields a case's result whenever it has grown.
 * Contestants of one case follow each other, so that they meet the machine in the same state.
 * @throws Error if Graft or PyTorch float32 fails; what else fails is left out, and the result says why.
 */
export async function* measureRounds(setting: Setting): AsyncGenerator<CaseResult> {
  const { cases, rounds, say } = setting;
  const jobs = new Map<string, Job>();
  for (const one of cases) jobs.set(one.id, await prepare(one, setting));
  const unusable = unusableContestants(setting);
  const results = new Map<string, CaseResult>();
  for (let round = 1; round <= rounds; round++)
    for (const [index, one] of cases.entries()) {
      say(`round ${round}/${rounds}, case ${index + 1}/${cases.length}: ${one.id}`);
      const before = results.get(one.id);
      const missing = { ...unusable, ...before?.missing };
      const taken = await measureCase(one, jobs.get(one.id)!, setting, missing);
      const result: CaseResult = {
        case: one,
        conditions: before?.conditions ?? conditionsOf(setting),
        rounds: [...(before?.rounds ?? []), taken.round],
        missing: Object.fromEntries(
          Object.entries({ ...missing, ...taken.failed }).filter(([name]) =>
            one.contestants.includes(name as Contestant),
          ),
        ),
      };
      for (const contestant of one.contestants) {
        const problem = disagreement(result, contestant);
        if (problem !== undefined) say(`  NOT COMPARABLE: ${problem}.`);
      }
      results.set(one.id, result);
      yield result;
    }
}

type Missing = CaseResult["missing"];

/** Why contestants cannot take part in any case. */
function unusableContestants({ cases, contestants, python }: Setting): Missing {
  const reasons: { [C in Contestant]?: string } = {};
  const wanted = (contestant: Contestant): boolean =>
    contestants.includes(contestant) && cases.some((one) => one.contestants.includes(contestant));
  for (const contestant of contestants)
    if (isTorch(contestant) && python === undefined) reasons[contestant] = "there is no PyTorch";
  if (python !== undefined && wanted("torch-compile")) {
    const problem = compileProblem(python);
    if (problem !== undefined) reasons["torch-compile"] = problem;
  }
  return reasons;
}

async function measureCase(
  one: Case,
  job: Job,
  { contestants, python, say }: Setting,
  missing: Missing,
): Promise<{ round: Round; failed: Missing }> {
  const round: { [C in Contestant]?: Measurement & { load: Load } } = {};
  const failed: { [C in Contestant]?: string } = {};
  for (const contestant of one.contestants) {
    if (!contestants.includes(contestant) || missing[contestant] !== undefined) continue;
    const load = await currentLoad();
    if (load.busy > BUSY_LIMIT)
      say(`  WARNING: ${Math.round(load.busy * 100)} % of the cores are in use by something else.`);
    try {
      const measured = await measure(contestant, python ?? "", job);
      round[contestant] = { ...measured, load };
      say(`  ${contestant.padEnd(14)} ${shown(measured)}`);
    } catch (error) {
      if (!(error instanceof Error) || isNeeded(contestant)) throw error;
      failed[contestant] = reasonOf(error.message);
      say(`  ${contestant.padEnd(14)} left out: ${error.message}`);
    }
  }
  return { round, failed };
}

/** The line of a failed process's last words that says what was wrong. */
export function reasonOf(message: string): string {
  const lines = message.split("\n").map((line) => line.trim());
  return (
    lines.findLast((line) => /^[\w.]*(Error|Exception)\b.*: /.test(line)) ??
    lines.findLast(Boolean) ??
    message
  );
}

function shown(run: Measurement): string {
  const peak = `peak ${(run.peakRssBytes / 1e9).toFixed(2)} GB, load ${run.loadSeconds.toFixed(1)} s`;
  const list = (values: readonly number[], digits: number): string =>
    values.map((value) => value.toFixed(digits)).join(" ");
  if (!("stepEnds" in run)) return `${list(run.tokensPerSecond, 1)} tokens/s, ${peak}`;
  return `steps ${list(stepSeconds(run), 2)} s, ${peak}, last loss ${run.losses.at(-1)!.toFixed(5)}`;
}

/** Makes what a case's programs read. */
async function prepare(one: Case, { storage, threads, prefixCache, say }: Setting): Promise<Job> {
  const { shape, selection, row, work } = one;
  const cache = join(root, "node_modules", ".cache", "graft-bench");
  const model = await makeCheckpoint(cache, { shape, storage, seed: 0 }, say);
  const [count, labelFraction] = isTraining(one)
    ? [one.work.batch * one.work.batches, one.work.labelFraction]
    : [work.batch, 1];
  const rows = makeRows(cache, { shape, row, count, labelFraction, seed: 0 });
  const common = { rows, threads, batch: work.batch };
  if (work.kind === "generation") {
    const lora = JSON.stringify(selectionOf(shape, selection).lora);
    const options = { ...common, lora, prompt: work.prompt, "new-tokens": work.newTokens, repeats: 2 };
    return { kind: "generation", model, options };
  }
  const adapter = await makeAdapter(cache, shape, selection);
  const options = {
    ...{ ...common, adapter, epochs: work.epochs },
    ...(prefixCache !== undefined && work.epochs > 1 && { "prefix-cache": prefixCache }),
  };
  return { kind: "training", model, options };
}

function conditionsOf({ threads, storage, prefixCache }: Setting): Conditions {
  const commit = currentCommit(root);
  return {
    at: `${new Date().toISOString().slice(0, 16)}Z`,
    ...(commit !== undefined && { commit }),
    machine: machine(),
    ...{ threads, storage },
    ...(prefixCache !== undefined && { prefixCache }),
  };
}

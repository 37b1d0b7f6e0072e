import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem, type } from "node:os";
import { setTimeout as wait } from "node:timers/promises";

/** The machine, as far as numbers depend on it. */
export type Machine = { cpu: string; cores: number; memoryBytes: number; system: string };

export function machine(): Machine {
  const cores = cpus();
  return {
    cpu: cpuName() ?? cores[0]?.model ?? "unknown",
    cores: cores.length,
    memoryBytes: totalmem(),
    system: `${type()} ${release()}`,
  };
}

/** On Linux, with what tells generations of one name apart, and the vector extensions that decide most. */
function cpuName(): string | undefined {
  try {
    const info = readFileSync("/proc/cpuinfo", "utf8");
    const name = /^model name\s*: (.*)$/m.exec(info)?.[1];
    const flags = new Set(/^flags\s*: (.*)$/m.exec(info)?.[1]?.split(" "));
    const family = /^cpu family\s*: (.*)$/m.exec(info)?.[1];
    const extensions = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].filter((flag) => flags.has(flag));
    const which = family === undefined ? [] : [`family ${family}`];
    return name && [name, ...which, ...extensions].join(", ");
  } catch {
    return undefined;
  }
}

/** How much others were computing when a measurement began. */
export type Load = {
  /** The system's mean over a minute, in which the measurement before may still be. */
  readonly average: number;
  /** Share of all cores that was in use while this process waited. */
  readonly busy: number;
};

/** Above this share, numbers are not to be trusted. */
export const BUSY_LIMIT = 0.1;

export async function currentLoad(milliseconds = 300): Promise<Load> {
  const before = cpuTimes();
  await wait(milliseconds);
  const after = cpuTimes();
  const all = after.all - before.all;
  return { average: loadavg()[0]!, busy: all === 0 ? 0 : 1 - (after.idle - before.idle) / all };
}

function cpuTimes(): { all: number; idle: number } {
  const sum = { all: 0, idle: 0 };
  for (const { times } of cpus()) {
    sum.all += Object.values(times).reduce((total, time) => total + time, 0);
    sum.idle += times.idle;
  }
  return sum;
}

/** The commit that is measured, with a + where files differ from it; undefined outside a repository. */
export function currentCommit(directory: string): string | undefined {
  const git = (...args: string[]) => spawnSync("git", args, { cwd: directory, encoding: "utf8" });
  const head = git("rev-parse", "--short=10", "HEAD");
  if (head.status !== 0) return undefined;
  const changes = git(
    "status",
    "--porcelain",
    "--untracked-files=no",
    "--",
    "src",
    "benchmarks/*.ts",
    "benchmarks/*.py",
  );
  return head.stdout.trim() + (changes.stdout.trim() === "" ? "" : "+");
}

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Contestant, flags, isTorch } from "./contestants.ts";

export const root = fileURLToPath(new URL("..", import.meta.url));

type Process = {
  /** Of the imports, before anything that is measured. */
  readonly importSeconds: number;
  /** From opening the checkpoint to the first step or prompt. */
  readonly loadSeconds: number;
  readonly peakRssBytes: number;
  readonly versions: Readonly<Record<string, string>>;
};

/** What the training programs print. */
export type TrainingRun = Process & {
  /** When each step ended, in seconds since the end of loading. */
  readonly stepEnds: readonly number[];
  /** Of each step, before its update. */
  readonly losses: readonly number[];
  readonly trainableParameters: number;
};

/** What the generation programs print; one element for each repeat. */
export type GenerationRun = Process & {
  readonly promptSeconds: readonly number[];
  readonly tokensPerSecond: readonly number[];
  /** Tokens of each row. */
  readonly texts: readonly (readonly number[])[];
};

export type Measurement = TrainingRun | GenerationRun;

/** One process: which program, and its options. */
export type Job = {
  readonly kind: "training" | "generation";
  readonly model: string;
  readonly options: Readonly<Record<string, string | number>>;
};

const programs = {
  training: { graft: "graft-run.ts", torch: "torch_run.py" },
  generation: { graft: "graft-generate.ts", torch: "torch_generate.py" },
};

/** Measures one contestant in a process of its own. @throws Error with the end of what it said if it fails. */
export async function measure(contestant: Contestant, python: string, job: Job): Promise<Measurement> {
  const own = Object.entries(job.options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const program = join(root, "benchmarks", programs[job.kind][isTorch(contestant) ? "torch" : "graft"]);
  const [command, args] = isTorch(contestant)
    ? [python, [program]]
    : [process.execPath, ["--import", "tsx", program]];
  const { status, stdout, stderr } = await runProcess(command, [
    ...args,
    job.model,
    ...flags[contestant],
    ...own,
  ]);
  if (status !== 0)
    throw new Error(
      `${contestant} failed (exit ${status}):\n${stderr.trim().split("\n").slice(-15).join("\n")}`,
    );
  return JSON.parse(stdout) as Measurement;
}

function runProcess(
  command: string,
  args: readonly string[],
): Promise<{ status: number | string; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, HF_HUB_OFFLINE: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ status: code ?? signal ?? "?", stdout, stderr }));
  });
}

/** A Python that can run the programs: GRAFT_PYTHON, or .venv-reference (scripts/reference-venv.sh makes it). */
export function findPython(): { python: string } | { reason: string } {
  const venv = join(root, ".venv-reference", "bin", "python");
  const python = process.env.GRAFT_PYTHON ?? (existsSync(venv) ? venv : undefined);
  if (python === undefined)
    return {
      reason:
        "GRAFT_PYTHON names no Python and there is no .venv-reference (make it with scripts/reference-venv.sh)",
    };
  const probe = spawnSync(python, ["-c", "import torch, transformers, peft"], { encoding: "utf8" });
  if (probe.error) return { reason: `cannot start ${python}: ${probe.error.message}` };
  if (probe.status !== 0)
    return { reason: `${python} lacks what it needs: ${probe.stderr.trim().split("\n").at(-1)}` };
  return { python };
}

/** Why torch.compile does not work here; undefined if it does. */
export function compileProblem(python: string): string | undefined {
  const code = "import torch; torch.compile(torch.nn.Linear(8, 8))(torch.ones(2, 8)).sum().backward()";
  const probe = spawnSync(python, ["-c", code], { encoding: "utf8" });
  if (probe.status === 0) return undefined;
  return probe.error?.message ?? probe.stderr.trim().split("\n").at(-1) ?? "it ends without a word";
}

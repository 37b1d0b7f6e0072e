import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Lora } from "./selections.ts";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** What is measured, in the order of a round. */
export const contestants = ["graft", "torch-float32", "torch-bfloat16"] as const;
export type Contestant = (typeof contestants)[number];

/** What both step programs print. */
export type Measurement = {
  readonly stepSeconds: readonly number[];
  readonly peakRssBytes: number;
  readonly loadSeconds: number;
  readonly importSeconds: number;
  readonly losses: readonly number[];
  readonly trainableParameters: number;
  readonly versions: Readonly<Record<string, string>>;
};

/** One measurement's work: paths of a model and of its rows, and how to train. */
export type Work = {
  readonly model: string;
  readonly rows: string;
  /** Members of an adapter_config.json. */
  readonly lora: Lora;
  readonly batch: number;
  readonly steps: number;
  readonly threads: number;
};

/** Measures one contestant in a process of its own. @throws Error with the end of what it said if it fails. */
export async function measure(contestant: Contestant, python: string, work: Work): Promise<Measurement> {
  const { model, lora, ...rest } = work;
  const options = Object.entries({ ...rest, lora: JSON.stringify(lora) }).flatMap(([name, value]) => [
    `--${name}`,
    String(value),
  ]);
  const program = (file: string) => join(root, "benchmarks", file);
  const [command, args] =
    contestant === "graft"
      ? [process.execPath, ["--import", "tsx", program("graft-step.ts")]]
      : [python, [program("torch_step.py"), "--dtype", contestant.slice("torch-".length)]];
  const { status, stdout, stderr } = await runProcess(command, [...args, model, ...options]);
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

/** A Python that can run torch_step.py: GRAFT_PYTHON, or .venv-reference (scripts/reference-venv.sh makes it). */
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

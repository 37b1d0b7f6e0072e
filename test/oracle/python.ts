import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openStore, readCheckpoint, readTensor } from "../../src/checkpoint/index.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import type { Expected } from "../support/reference-case.ts";

const script = fileURLToPath(new URL("../../scripts/oracle.py", import.meta.url));

/** A batch as scripts/oracle.py reads it. */
export type PythonBatch = Pick<Expected["batch"], "input_ids"> & Partial<Expected["batch"]>;

type Question = { model: string; adapter: string; batch: PythonBatch; directory: string };

/** Runs a subcommand of scripts/oracle.py on a checkpoint and an adapter; files go to `directory`. */
function ask<T>(command: string, out: string, question: Question): T {
  const python = process.env.GRAFT_PYTHON;
  if (!python)
    throw new Error("GRAFT_PYTHON names no interpreter. Run these tests with: npm run test:oracle");
  const { model, adapter, batch, directory } = question;
  const batchFile = join(directory, "batch.json");
  writeFileSync(batchFile, JSON.stringify(batch));
  const options = { model, adapter, batch: batchFile, out };
  const run = spawnSync(
    python,
    [script, command, ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])],
    { encoding: "utf8", env: { ...process.env, HF_HUB_OFFLINE: "1" } },
  );
  if (run.status !== 0)
    throw new Error(`${command} failed: ${run.error?.message ?? (run.stdout.trim() || run.stderr.trim())}`);
  return JSON.parse(run.stdout) as T;
}

/** What PEFT makes of a saved adapter: its targets, its tensors by key, and the adapted model's logits. */
export async function checkAdapter(question: Question) {
  const out = join(question.directory, "checked.safetensors");
  const { targets } = ask<{ targets: Expected["targets"] }>("check-adapter", out, question);
  const { tensors } = await readCheckpoint(await openStore(out));
  const adapter = new Map<string, Tensor>();
  for (const [name, entry] of tensors)
    if (name.startsWith("adapter.")) adapter.set(name.slice("adapter.".length), await readTensor(entry));
  const logits = (await readTensor(tensors.get("logits")!)).data as Float32Array;
  return { targets, adapter, logits };
}

/** Greedy tokens of transformers' generate, without an end token; `margin` is the smallest lead of a chosen token. */
export function loadAndGenerate(question: Question): { newTokens: number[][]; margin: number } {
  return ask("load-and-generate", join(question.directory, "generated.json"), question);
}

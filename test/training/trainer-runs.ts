import { cpSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { getPeftModel, LoraConfig, type PeftModel } from "../../src/adapters/index.ts";
import type { CausalLM } from "../../src/models/index.ts";
import type { TrainingOptionsInput } from "../../src/training/index.ts";
import { ReferenceCase } from "../support/reference-case.ts";

export const referenceCase = (name: string): ReferenceCase =>
  new ReferenceCase(fileURLToPath(new URL(`../vectors/models/${name}`, import.meta.url)));

/** A folder that is removed after the test. */
export async function temporaryFolder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "graft-trainer-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** A recorded base model with a fresh adapter. */
export async function freshAdapter(
  reference: ReferenceCase,
  options: LoraConfigOptions = {},
): Promise<PeftModel<CausalLM>> {
  const config = new LoraConfig({ r: 2, loraAlpha: 4, targetModules: ["q_proj", "v_proj"], ...options });
  return getPeftModel(await reference.loadBase(), config, { seed: 11 });
}

/** The run of scripts/record_models.py: AdamW as torch has it, batches of two in order, every loss logged. */
export const plainRun = {
  batchSize: 2,
  maxSteps: 10,
  learningRate: 1e-3,
  weightDecay: 0.01,
  lrSchedulerType: "constant",
  maxGradNorm: 0,
  shuffle: false,
} as const satisfies TrainingOptionsInput;

/** The trained values by name, copied. */
export const weightsOf = (peft: PeftModel<CausalLM>): Record<string, number[]> =>
  Object.fromEntries([...peft.trainableParameters()].map(([name, { data }]) => [name, [...data!.data]]));

/** Lines of metrics.jsonl without what is measured with a clock. */
export const metricsOf = (folder: string): Record<string, unknown>[] =>
  readFileSync(join(folder, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const { time: _, tokens_per_second: __, ...rest } = JSON.parse(line) as Record<string, unknown>;
      return rest;
    });

/** What is in a folder, in order. */
export const list = (folder: string): string[] => readdirSync(folder).sort();

/** A copy of a run's folder, as a crash would leave it. */
export const copyFolder = (from: string, to: string): void => cpSync(from, to, { recursive: true });

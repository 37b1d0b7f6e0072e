import { existsSync, readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readCheckpoint, readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import { openStore } from "../../src/checkpoint/open-store.ts";
import { relativeL2 } from "../support/close.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { type ErrorDocument, finish, graft, root, scratch, start, tinyLlama, vectors } from "./support.ts";

const directory = scratch();
const reference = (name: string): ReferenceCase => new ReferenceCase(join(vectors, "models", name));
const dictionary = join(root, "data/devils-dictionary");

type Trained = {
  steps: {
    step: number;
    loss: number;
    gradNorm: number;
    learningRate: number;
    tokens: number;
    seconds: number;
  }[];
  adapter: string;
  trainableParameters: number;
  totalParameters: number;
  targets: { name: string; r: number; alpha: number; scaling: number; parameters: number }[];
  reason: string;
  evaluation: { before: { loss: number } | null; after: { loss: number }; history: unknown[] };
};

/** The command line of the parity contract. */
const contract = (reference: ReferenceCase, output: string): string[] => [
  ...["train", reference.modelPath, "--adapter", reference.adapterPath, "--data", reference.dataPath],
  ...["--no-shuffle", "--batch-size", "2", "--max-steps", "10", "--learning-rate", "1e-3"],
  ...["--weight-decay", "0.01", "--lr-scheduler", "constant", "--max-grad-norm", "0", "--seed", "0"],
  ...["--output", output, "--json"],
];

async function tensorsOf(file: string): Promise<Map<string, Float32Array>> {
  const { tensors } = await readCheckpoint(await openStore(file));
  const read = [...tensors].map(
    async ([name, entry]) => [name, (await readTensorAsFloat32(entry)).data] as const,
  );
  return new Map(await Promise.all(read));
}

describe("train --adapter: ten steps as PEFT makes them", () => {
  test.each(["llama-qv", "llama-embedding-lora", "mistral-sliding-window", "qwen2-tied", "qwen3-head-dim"])(
    "%s",
    async (name) => {
      const model = reference(name);
      const { expected } = model;
      const output = join(directory, name);
      const { code, stderr, json } = await graft(contract(model, output));
      expect(code, stderr).toBe(0);
      const result = json<Trained>();
      expect(json<{ loadSeconds: number }>().loadSeconds).toBeGreaterThan(0);
      expect(json<{ threads: number }>().threads).toBe(availableParallelism());
      expect(result).toMatchObject({
        adapter: output,
        reason: "finished",
        trainableParameters: expected.trainableParameters,
        totalParameters: expected.totalParameters,
      });
      expect(result.targets.map(({ parameters: _, ...target }) => target)).toEqual(expected.targets);
      expect(result.steps.map(({ step, tokens, learningRate }) => ({ step, tokens, learningRate }))).toEqual(
        expected.training.steps.map(({ step, tokens, learningRate }) => ({ step, tokens, learningRate })),
      );
      result.steps.forEach(({ loss, gradNorm, seconds }, i) => {
        const recorded = expected.training.steps[i]!;
        expect(Math.abs(loss / recorded.loss - 1)).toBeLessThan(1e-5);
        expect(Math.abs(gradNorm / recorded.gradNorm - 1)).toBeLessThan(1e-4);
        expect(seconds).toBeGreaterThan(0);
      });

      const saved = await tensorsOf(join(output, "adapter_model.safetensors"));
      const recorded = await model.tensors();
      expect([...saved.keys()].sort()).toEqual([...expected.adapterKeys].sort());
      for (const key of expected.trainableKeys)
        expect(relativeL2(saved.get(key)!, recorded.get(`after.${key}`)!), key).toBeLessThan(1e-4);
      const config = (path: string) => JSON.parse(readFileSync(join(path, "adapter_config.json"), "utf8"));
      expect(config(output)).toEqual({
        ...config(model.adapterPath),
        base_model_name_or_path: model.modelPath,
      });

      const evaluated = await graft([
        ...[
          "eval",
          model.modelPath,
          "--adapter",
          output,
          "--data",
          model.dataPath,
          "--batch-size",
          "3",
          "--json",
        ],
      ]);
      const { loss, perplexity, tokens } = evaluated.json<Record<string, number>>();
      expect(Math.abs(loss! / expected.evaluation.after.loss - 1)).toBeLessThan(1e-5);
      expect(Math.abs(perplexity! / expected.evaluation.after.perplexity - 1)).toBeLessThan(1e-4);
      expect(tokens).toBe(expected.evaluation.after.labelTokens);
    },
  );
});

describe("train a new adapter", () => {
  test("in the layers named, on text, better than before; for people", async () => {
    const output = join(directory, "dictionary");
    const { code, stdout, stderr } = await graft([
      ...["train", tinyLlama, "--data", join(dictionary, "train.jsonl")],
      ...["--eval-data", join(dictionary, "test.jsonl"), "--target-modules", "q_proj,v_proj"],
      ...["--layers-to-transform", "4,5", "--r", "4", "--lora-alpha", "8", "--max-steps", "24"],
      ...["--batch-size", "4", "--max-length", "48", "--learning-rate", "1e-2", "--output", output],
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("adapting q_proj, v_proj in layers 4–5\n");
    // 4 layers: A [4, 128] twice for q, v; B [128, 4] for q, [64, 4] for v
    expect(stderr).toContain("trainable params: 3,584 || all params: 1,447,040 || trainable%: 0.2477\n");
    const [, before, after] = /evaluation loss ([\d.]+) → ([\d.]+) /.exec(stdout)!;
    expect(Number(after)).toBeLessThan(Number(before) - 0.1);
    expect(stdout).toContain(`adapter: ${output}\n`);
    expect(stdout).toContain(`graft generate ${tinyLlama} --adapter ${output} --prompt`);
    const files = readdirSync(output);
    expect(files).toEqual(
      expect.arrayContaining(["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "runs"]),
    );
    expect(readdirSync(join(output, "runs"))[0]).toMatch(/^events\.out\.tfevents\./);
    const config = JSON.parse(readFileSync(join(output, "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({
      r: 4,
      lora_alpha: 8,
      layers_to_transform: [4, 5],
      task_type: "CAUSAL_LM",
      base_model_name_or_path: tinyLlama,
    });
  });

  test("--config with flags over it, an evaluation split, and --quiet", async () => {
    const { modelPath, dataPath, adapterPath } = reference("llama-qv");
    const { code, stderr, json } = await graft([
      ...["train", modelPath, "--data", dataPath, "--eval-split", "2", "--config", adapterPath, "--r", "2"],
      ...["--epochs", "2", "--batch-size", "2", "--json", "--quiet", "--output", join(directory, "split")],
    ]);
    expect([code, stderr]).toEqual([0, ""]);
    const { steps, targets, evaluation } = json<Trained>();
    expect(steps).toHaveLength(6); // 7 examples, 2 of them held out: 3 batches an epoch
    expect(targets.map(({ r, alpha }) => [r, alpha])).toEqual(Array(4).fill([2, 8]));
    expect(evaluation.history).toHaveLength(2);
    expect(evaluation.after.loss).toEqual((evaluation.history[1] as { loss: number }).loss);
    expect(evaluation.before!.loss).toBeGreaterThan(0);
  });
});

test("--packing says what it has come to, and puts short texts together", async () => {
  const { modelPath, dataPath } = reference("llama-qv");
  const args = ["train", modelPath, "--data", dataPath, "--batch-size", "2", "--epochs", "1", "--json"];
  const packed = await graft([
    ...[...args, "--packing", "--pack-length", "48", "--output", join(directory, "packed")],
  ]);
  expect(packed.code, packed.stderr).toBe(0);
  expect(packed.stderr).toMatch(
    /packing: 7 examples in 2 rows of up to 48 tokens, \d+\.\d % of them padding instead of \d+\.\d %\n/,
  );
  const { steps, packing } = packed.json<Trained & { packing: Record<string, unknown> }>();
  expect(steps.map(({ tokens }) => tokens)).toEqual([84]);
  expect(packing).toMatchObject({ rows: 2, packLength: 48 });
  const wrong = await graft([...args, "--pack-length", "48", "--output", join(directory, "not-packed")]);
  expect(wrong.json<ErrorDocument>().error.message).toContain("--pack-length has no effect without packing");
});

describe("interrupting and resuming", () => {
  const model = reference("llama-qv");
  const args = (output: string, steps: number, ...more: string[]): string[] => [
    ...["train", model.modelPath, "--data", model.dataPath, "--lora-dropout", "0.1", "--batch-size", "2"],
    ...["--lr-scheduler", "constant", "--max-steps", String(steps), "--save-strategy", "no"],
    ...["--output", output, "--json", ...more],
  ];

  test("Ctrl-C saves a checkpoint; --resume goes on to what an uninterrupted run gives", async () => {
    const output = join(directory, "interrupted");
    const child = start(args(output, 1_000_000));
    let seen = "";
    child.stderr!.on("data", (chunk: Buffer) => {
      const isNew = !seen.includes("training: ");
      seen += chunk;
      if (isNew && seen.includes("training: ")) setTimeout(() => child.kill("SIGINT"), 1000);
    });
    const interrupted = await finish(child);
    expect(interrupted.code).toBe(130);
    expect(interrupted.stderr).toMatch(
      /checkpoint-\d+ is saved\. To go on, run the same command with --resume/,
    );
    const before = interrupted.json<Trained>();
    expect(before).toMatchObject({ reason: "aborted", adapter: null });
    const done = before.steps.length;
    expect(done).toBeGreaterThan(3);
    expect(readdirSync(output)).toContain(`checkpoint-${done}`);
    expect(existsSync(join(output, "adapter_model.safetensors"))).toBe(false);

    const refused = await graft(args(output, done + 5));
    expect([refused.code, refused.json<ErrorDocument>().error.code]).toEqual([2, "unfinished-run"]);
    expect(refused.stderr).toMatch(/--resume.*--overwrite/);
    const mismatched = await graft(args(output, done + 5, "--resume", "--learning-rate", "0.5"));
    expect([mismatched.code, mismatched.json<ErrorDocument>().error.code]).toEqual([2, "resume-mismatch"]);

    const resumed = await graft(args(output, done + 5, "--resume"));
    expect(resumed.code, resumed.stderr).toBe(0);
    const straight = await graft(args(join(directory, "straight"), done + 5));
    const all = straight.json<Trained>().steps.map(({ loss }) => loss);
    expect([...before.steps, ...resumed.json<Trained>().steps].map(({ loss }) => loss)).toEqual(all);
    const bytes = (folder: string): Buffer =>
      readFileSync(join(directory, folder, "adapter_model.safetensors"));
    expect(bytes("interrupted").equals(bytes("straight"))).toBe(true);
  }, 120_000);

  test("there must be something to resume", async () => {
    const { code, stderr } = await graft(args(join(directory, "fresh"), 5, "--resume"));
    expect(code).toBe(2);
    expect(stderr).toMatch(/fresh has no checkpoint to resume from/);
    expect(existsSync(join(directory, "fresh"))).toBe(false);
  });
});

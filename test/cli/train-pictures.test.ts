import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readCheckpoint } from "../../src/checkpoint/index.ts";
import { openStore } from "../../src/checkpoint/open-store.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import { seq2seqCases } from "../models/seq2seq-case.ts";
import { type ErrorDocument, graft, scratch } from "./support.ts";

const directory = scratch();

type Trained = {
  steps: { step: number; loss: number; gradNorm: number; tokens: number }[];
  adapter: string;
  trainableParameters: number;
  totalParameters: number;
  targets: { name: string; r: number; alpha: number; scaling: number }[];
};

/** A float32 array as numpy saves it. */
function npy(shape: readonly number[], data: Float32Array): Uint8Array {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const bytes = Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00", "latin1"),
    Buffer.from(Uint16Array.of(padded.length).buffer),
    Buffer.from(padded, "latin1"),
  ]);
  return Buffer.concat([bytes, Buffer.from(data.buffer, data.byteOffset, data.byteLength)]);
}

const linesOf = (folder: string): { input_ids: number[]; labels: number[] }[] =>
  readFileSync(join(folder, "tokens.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

/** Rows as a processor in Python would leave them, pictures in files beside. */
async function processedRows(reference: ReturnType<typeof florence2Cases>[number]): Promise<string> {
  const folder = join(directory, `${reference.expected.name}-data`);
  mkdirSync(join(folder, "pixels"), { recursive: true });
  const lines = linesOf(reference.directory);
  const { pixelValues } = await reference.lines(
    lines.map((_, i) => i),
    1,
  );
  const [, ...shape] = pixelValues.shape;
  const size = pixelValues.data.length / lines.length;
  const rows = lines.map((line, i) => {
    const file = `pixels/${i}.npy`;
    writeFileSync(join(folder, file), npy(shape, pixelValues.data.slice(i * size, (i + 1) * size)));
    return JSON.stringify({ pixel_values_file: file, ...line });
  });
  writeFileSync(join(folder, "rows.jsonl"), rows.join("\n"));
  return join(folder, "rows.jsonl");
}

/** The command line of the parity contract. */
const contract = (model: string, adapter: string, data: string, output: string): string[] => [
  ...["train", model, "--adapter", adapter, "--data", data],
  ...["--no-shuffle", "--batch-size", "2", "--max-steps", "10", "--learning-rate", "1e-3"],
  ...["--weight-decay", "0.01", "--lr-scheduler", "constant", "--max-grad-norm", "0", "--seed", "0"],
  ...["--output", output, "--json"],
];

const florences = florence2Cases().filter(({ expected }) => expected.sourceSide === "right");
const barts = seq2seqCases().filter(({ expected }) => expected.sourceSide === "right");

describe("train --adapter: ten steps as PEFT makes them", () => {
  test.each(
    [...florences, ...barts.slice(0, 2)].map((reference) => [reference.expected.name, reference] as const),
  )("%s", async (name, reference) => {
    const { expected } = reference;
    const data =
      "imageTokens" in expected
        ? await processedRows(reference as (typeof florences)[number])
        : join(reference.directory, "tokens.jsonl");
    const [model, adapter] = [join(reference.directory, "model"), join(reference.directory, "adapter")];
    const output = join(directory, name);
    const { code, stderr, json } = await graft(contract(model, adapter, data, output));
    expect(code, stderr).toBe(0);
    const result = json<Trained>();
    expect(result).toMatchObject({
      adapter: output,
      trainableParameters: expected.trainableParameters,
      totalParameters: expected.totalParameters,
    });
    expect(result.targets.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling }))).toEqual(
      expected.targets,
    );
    expect(result.steps.length).toBe(10);
    result.steps.forEach(({ loss }, i) => {
      expect(Math.abs(loss / expected.training.steps[i]!.loss - 1), `step ${i + 1}`).toBeLessThan(1e-5);
    });
    const lossOf = async (folder: string): Promise<number> => {
      const evaluated = await graft(["eval", model, "--adapter", folder, "--data", data, "--json"]);
      expect(evaluated.code, evaluated.stderr).toBe(0);
      return evaluated.json<{ loss: number }>().loss;
    };
    expect(await lossOf(output)).toBeLessThan(await lossOf(adapter));
  });
});

test("a folder without a processor reads no pictures, and says why", async () => {
  const [reference] = florences;
  const rows = join(directory, "pictures.jsonl");
  writeFileSync(rows, JSON.stringify({ image: "a.png", prompt: "<CAPTION>", completion: "x" }));
  const { code, json } = await graft([
    ...["eval", join(reference!.directory, "model"), "--data", rows, "--json"],
  ]);
  expect(code).toBe(2);
  expect(json<ErrorDocument>().error.message).toMatch(/processor/);
});

test("--naming remote-code saves what the older class loads, and reads it again", async () => {
  const [reference] = florences;
  const data = await processedRows(reference!);
  const model = join(reference!.directory, "model");
  const train = (output: string, ...more: string[]) =>
    graft([
      ...["train", model, "--data", data, "--target-modules", "q_proj", "--layers-to-transform", "0"],
      ...["--max-steps", "2", "--batch-size", "2", "--output", output, "--json", ...more],
    ]);
  const [native, older] = [join(directory, "native"), join(directory, "older")];
  expect((await train(native)).code).toBe(0);
  const trained = await train(older, "--naming", "remote-code");
  expect(trained.code, trained.stderr).toBe(0);
  const keys = async (folder: string): Promise<string[]> => [
    ...(await readCheckpoint(await openStore(join(folder, "adapter_model.safetensors")))).tensors.keys(),
  ];
  expect((await keys(older)).every((key) => key.startsWith("base_model.model.language_model.model."))).toBe(
    true,
  );
  expect((await keys(native)).every((key) => key.startsWith("base_model.model.model.language_model."))).toBe(
    true,
  );
  const losses = await Promise.all(
    [native, older].map(async (adapter) => {
      const { stderr, json } = await graft(["eval", model, "--adapter", adapter, "--data", data, "--json"]);
      return { loss: json<{ loss: number }>().loss, told: stderr.includes("names of remote-code") };
    }),
  );
  expect(losses[0]!.loss).toBe(losses[1]!.loss);
  expect(losses.map(({ told }) => told)).toEqual([false, true]);
});

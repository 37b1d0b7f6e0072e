import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, type PeftModel } from "../../src/adapters/index.ts";
import { collate, type Example, memoryDataset } from "../../src/data/index.ts";
import { DataError } from "../../src/errors.ts";
import type { ImageTextToTextLM, LanguageModel } from "../../src/models/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { evaluate, type StepEnd, Trainer, TrainingStep } from "../../src/training/index.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import { seq2seqCases } from "../models/seq2seq-case.ts";
import { relativeL2 } from "../support/close.ts";
import { Numbers, sharedEngine } from "../support/run-graph.ts";
import { list, metricsOf, plainRun, temporaryFolder } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const cases = [...seq2seqCases(), ...florence2Cases()];
type Case = (typeof cases)[number];

const picturesOf = async (reference: Case): Promise<(line: number) => Tensor<"float32"> | undefined> => {
  if (!("loadBase" in reference) || !("imageTokens" in reference.expected)) return () => undefined;
  const { padTokenId } = await reference.loadBase();
  const all = await (reference as ReturnType<typeof florence2Cases>[number]).lines(
    reference.expected.training.steps
      .flatMap(({ lines }) => lines)
      .filter((line, i, lines) => lines.indexOf(line) === i),
    padTokenId,
  );
  const [, ...shape] = all.pixelValues.shape;
  const size = shape.reduce((a, b) => a * b, 1);
  return (line) => tensor("float32", shape, all.pixelValues.data.slice(line * size, (line + 1) * size));
};

/** The lines of a case as examples. */
async function examplesOf(reference: Case): Promise<Example[]> {
  const pictureOf = await picturesOf(reference);
  return readFileSync(join(reference.directory, "tokens.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line, i) => {
      const { input_ids: inputIds, labels } = JSON.parse(line) as { input_ids: number[]; labels: number[] };
      const pixelValues = pictureOf(i);
      return { inputIds, labels, ...(pixelValues && { pixelValues }) };
    });
}

test("there are cases of both kinds", () => {
  expect(cases.length).toBeGreaterThanOrEqual(10);
});

describe.each(cases.map((reference) => [reference.expected.name, reference] as const))(
  "%s",
  (_, reference) => {
    test("ten steps are PyTorch's and PEFT's", async () => {
      const { expected } = reference;
      const recorded = await reference.tensors();
      const model: PeftModel<LanguageModel> = await reference.loadAdapted();
      const trainer = new Trainer({
        model,
        trainDataset: memoryDataset(await examplesOf(reference)),
        engine: engine(),
        paddingSide: expected.sourceSide,
        ...plainRun,
      });
      const { steps, reason } = await trainer.train();
      expect(reason).toBe("finished");
      expect(steps.length).toBe(10);
      for (const [i, { loss }] of steps.entries())
        expect(Math.abs(loss / expected.training.steps[i]!.loss - 1), `loss of step ${i + 1}`).toBeLessThan(
          1e-5,
        );
      for (const [key, { data }] of model.trainableParameters())
        expect(relativeL2(data!.data, recorded.get(`after.${key}`)!), key).toBeLessThan(1e-4);
    });
  },
);

/** A recorded Florence-2 with a fresh adapter with dropout in all towers. */
const reference = florence2Cases().find(({ expected }) => expected.name === "florence2-four-stages")!;
async function freshFlorence2(loraDropout = 0): Promise<PeftModel<ImageTextToTextLM>> {
  const config = new LoraConfig({
    r: 2,
    targetModules: ["qkv", "q_proj", "v_proj"],
    loraDropout,
    initLoraWeights: false,
  });
  return getPeftModel(await reference.loadBase(), config, { seed: 5 });
}

/** Examples with random pictures of these sizes, or without one. */
function examplesWith(
  model: ImageTextToTextLM,
  sizes: readonly (readonly [number, number] | undefined)[],
): Example[] {
  return sizes.map((size, i) => {
    const text = [0, 11 + i, 12, 2];
    const labels = [20 + i, 21, 2];
    if (!size) return { inputIds: text, labels };
    const [height, width] = size;
    const values = new Numbers(i).fill([3, height, width], -1, 1);
    const placeholders = Array<number>(model.imageTokens({ height, width })).fill(model.imageTokenId);
    return {
      inputIds: [...placeholders, ...text],
      labels,
      pixelValues: tensor("float32", [3, height, width], Float32Array.from(values)),
    };
  });
}

const sizes = [[64, 64], [48, 80], undefined, [64, 64], [96, 40], [48, 80]] as const;

test("pictures of several sizes, and prompts without, train in one batch as they do one by one", async () => {
  const peft = await freshFlorence2();
  const examples = examplesWith(peft.baseModel, sizes);
  const step = new TrainingStep(peft.baseModel, engine());
  const single = new Map<string, number[]>();
  let loss = 0;
  const labels = examples.reduce((sum, example) => sum + example.labels.length, 0);
  for (const example of examples) {
    const batch = collate([example], { padTokenId: 1, labels: "decoder" });
    expect(batch.labelTokens).toBe(3);
    const result = await step.run(batch, { lossScale: 1 / labels, seed: 0 });
    loss += result.loss;
    for (const [name, values] of result.gradients) {
      const sum = single.get(name) ?? Array<number>(values.length).fill(0);
      single.set(
        name,
        sum.map((value, i) => value + values[i]!),
      );
    }
  }
  await step.dispose();
  const norm = Math.sqrt([...single.values()].flat().reduce((sum, value) => sum + value * value, 0));

  const trainer = new Trainer({
    model: peft,
    trainDataset: memoryDataset(examples),
    engine: engine(),
    ...plainRun,
    batchSize: examples.length,
    maxSteps: 1,
  });
  const before = await evaluate(peft.baseModel, memoryDataset(examples), {
    engine: engine(),
    padTokenId: 1,
    batchSize: 4,
  });
  expect(Math.abs(before.loss / loss - 1)).toBeLessThan(1e-6);
  expect(before.labelTokens).toBe(labels);
  const { steps } = await trainer.train();
  expect(Math.abs(steps[0]!.loss / loss - 1)).toBeLessThan(1e-6);
  expect(Math.abs(steps[0]!.gradNorm / norm - 1)).toBeLessThan(1e-5);
});

const twoSizes = [
  [64, 64],
  [48, 80],
  [48, 80],
  [64, 64],
  [48, 80],
] as const;

test("an interrupted run goes on to the same numbers, with dropout and pictures of several sizes", async () => {
  const run = async (folder: string, options: { stop?: number; resume?: boolean }) => {
    const peft = await freshFlorence2(0.2);
    const controller = new AbortController();
    const stop = (event: StepEnd): void => {
      if (event.step === options.stop) controller.abort();
    };
    return new Trainer({
      model: peft,
      trainDataset: memoryDataset(examplesWith(peft.baseModel, twoSizes)),
      engine: engine(),
      batchSize: 4,
      maxSteps: 4,
      learningRate: 1e-2,
      seed: 3,
      outputDir: folder,
      callbacks: [{ onStepEnd: stop }],
      signal: controller.signal,
      resume: options.resume ?? false,
    }).train();
  };
  const whole = await temporaryFolder();
  const parts = await temporaryFolder();
  const { steps } = await run(whole, {});
  const first = await run(parts, { stop: 2 });
  expect(first.reason).toBe("aborted");
  const second = await run(parts, { resume: true });
  expect([...first.steps, ...second.steps].map(({ loss, gradNorm }) => [loss, gradNorm])).toEqual(
    steps.map(({ loss, gradNorm }) => [loss, gradNorm]),
  );
  expect(metricsOf(parts)).toEqual(metricsOf(whole));
  const file = "adapter_model.safetensors";
  expect(readFileSync(join(parts, file)).equals(readFileSync(join(whole, file)))).toBe(true);
  expect(list(parts)).toContain(file);
});

test("the model's own dropout is left out unless it is asked for", async () => {
  const run = async (modelDropout: boolean) => {
    const model = await freshFlorence2(); // its config.json drops paths of the vision tower
    const trainDataset = memoryDataset(
      examplesWith(model.baseModel, [
        [64, 64],
        [64, 64],
      ]),
    );
    return new Trainer({
      model,
      trainDataset,
      engine: engine(),
      ...plainRun,
      maxSteps: 2,
      modelDropout,
    }).train();
  };
  const losses = ({ steps }: { steps: readonly StepEnd[] }): number[] => steps.map(({ loss }) => loss);
  const [without, dropped, again] = [await run(false), await run(true), await run(true)];
  expect(losses(dropped)).toEqual(losses(again));
  expect(losses(dropped)).not.toEqual(losses(without));
});

describe("examples that the model cannot read", () => {
  const picture = tensor("float32", [3, 64, 64], new Float32Array(3 * 64 * 64));
  const places = Array<number>(5).fill(63);
  test.each<[string, Example, RegExp]>([
    [
      "a placeholder too few",
      { inputIds: [...places.slice(1), 0, 2], labels: [2], pixelValues: picture },
      /^rows\.jsonl:7: the input has 4 image tokens \(63\) for a picture of 64 × 64, of which the model makes 5 features/,
    ],
    [
      "placeholders without a picture",
      { inputIds: [...places, 0, 2], labels: [2] },
      /^rows\.jsonl:7: the input has 5 image tokens \(63\) for no picture/,
    ],
    [
      "a picture of one channel",
      {
        inputIds: [...places, 0, 2],
        labels: [2],
        pixelValues: tensor("float32", [1, 64, 64], new Float32Array(64 * 64)),
      },
      /shape \[1, 64, 64\], expected \[3, height, width\]/,
    ],
    [
      "a text beyond the position table",
      { inputIds: [...places, ...Array<number>(2000).fill(7)], labels: [2], pixelValues: picture },
      /^rows\.jsonl:7: the input has 2005 tokens, and the model has \d+ positions\. Shorten/,
    ],
    [
      "labels beyond the position table",
      { inputIds: [...places, 0, 2], labels: Array<number>(2000).fill(7), pixelValues: picture },
      /^rows\.jsonl:7: the labels have 2000 tokens, and the model has \d+ positions/,
    ],
    [
      "a label outside the vocabulary",
      { inputIds: [...places, 0, 2], labels: [9999], pixelValues: picture },
      /^rows\.jsonl:7: the label at position 0 is 9999, outside the vocabulary/,
    ],
  ])("%s", async (_, example, message) => {
    const model = await freshFlorence2();
    const trainer = new Trainer({
      model,
      trainDataset: memoryDataset([{ ...example, file: "rows.jsonl", line: 7 }]),
      engine: engine(),
      ...plainRun,
    });
    const error = await trainer.train().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).message).toMatch(message);
  });

  test("pictures for a model that reads none", async () => {
    const bart = seq2seqCases()[0]!;
    const error = await evaluate(
      await bart.loadBase(),
      memoryDataset([{ inputIds: [5, 6], labels: [7], pixelValues: picture }]),
      { engine: engine(), padTokenId: 1 },
    ).catch((caught: unknown) => caught);
    expect((error as DataError).message).toMatch(/^The data has pictures, which a bart does not read/);
  });
});

import { join } from "node:path";
import { expect, test } from "vitest";
import { TrainingError } from "../../src/errors.ts";
import { Trainer, type TrainerOptions, type TrainResult } from "../../src/training/index.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import { relativeL2 } from "../support/close.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { copyFolder, freshAdapter, referenceCase, temporaryFolder, weightsOf } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const reference = referenceCase("mistral-sliding-window"); // seven examples of 8 to 16 tokens, 84 in all
const dataset = reference.dataset();

async function train(
  options: Partial<TrainerOptions>,
  loraDropout = 0,
): Promise<{ result: TrainResult; weights: Record<string, number[]> }> {
  const model = await freshAdapter(reference, { loraDropout });
  const common = { model, trainDataset: dataset, engine: engine(), learningRate: 0.02, seed: 3 };
  const result = await new Trainer({ ...common, ...options }).train();
  return { result, weights: weightsOf(model) };
}

test("steps over all examples are those of padded batches", async () => {
  const steps = { batchSize: 7, maxSteps: 3 };
  const padded = await train(steps);
  const packed = await train({ ...steps, packing: true, packLength: 32 });
  expect(packed.result.steps.map(({ tokens }) => tokens)).toEqual([84, 84, 84]);
  for (const [i, { loss }] of packed.result.steps.entries())
    expect(Math.abs(loss / padded.result.steps[i]!.loss - 1)).toBeLessThan(1e-5);
  for (const [name, weights] of Object.entries(packed.weights))
    expect(relativeL2(weights, padded.weights[name]!), name).toBeLessThan(1e-4);
});

test("says what it has come to; epochs are as long as their rows", async () => {
  let begun: unknown;
  const onTrainBegin = (event: unknown): void => {
    begun = event;
  };
  const { result } = await train({
    packing: true,
    batchSize: 1,
    numTrainEpochs: 2,
    callbacks: [{ onTrainBegin }],
  });
  const { rows, packLength, padding } = result.packing!;
  expect(packLength).toBe(16); // the longest example's
  expect(rows).toBeLessThanOrEqual(7);
  expect(begun).toMatchObject({ examples: 7, packing: result.packing, totalSteps: result.steps.length });
  expect(padding.without).toBe(0); // batches of one example
  expect(result.steps.at(-1)!.epoch).toBe(2);
  expect(result.steps.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(2 * 84);
  expect(result.steps.filter(({ epoch }) => epoch <= 1)).toHaveLength(rows);
});

test("a resumed run is the uninterrupted one, wherever in an epoch it stopped", async () => {
  const eventful: Partial<TrainerOptions> = {
    packing: true,
    packLength: 24,
    batchSize: 1,
    gradientAccumulationSteps: 2,
    numTrainEpochs: 3,
    saveSteps: 1,
  };
  const outputDir = join(await temporaryFolder(), "run");
  const at = (step: number): string => `${outputDir}-${step}`;
  const whole = await train(
    { ...eventful, outputDir, callbacks: [{ onSave: ({ step }) => copyFolder(outputDir, at(step)) }] },
    0.3,
  );
  expect(whole.result.steps.length).toBeGreaterThan(5);
  for (let step = 1; step < whole.result.steps.length; step++) {
    const { result, weights } = await train({ ...eventful, outputDir: at(step), resume: true }, 0.3);
    const numbers = ({ steps }: TrainResult) => steps.map(({ step, epoch, loss }) => ({ step, epoch, loss }));
    expect(numbers(result)).toEqual(numbers(whole.result).slice(step));
    expect(weights).toEqual(whole.weights);
  }
  for (const change of [
    { packLength: 32 },
    { packLength: undefined },
    { packing: false, packLength: undefined },
  ])
    await expect(train({ ...eventful, ...change, outputDir: at(1), resume: true }, 0.3)).rejects.toThrow(
      /Cannot resume: .*pack/,
    );
});

test("is refused for an encoder–decoder, and where it contradicts something", async () => {
  const model = await florence2Cases()[0]!.loadAdapted();
  const refused = (options: Partial<TrainerOptions>): TrainingError => {
    try {
      new Trainer({ model, trainDataset: dataset, ...options });
    } catch (error) {
      return error as TrainingError;
    }
    throw new Error("accepted");
  };
  expect(refused({ packing: true })).toBeInstanceOf(TrainingError);
  expect(refused({ packing: true })).toMatchObject({
    code: "cannot-pack",
    message: expect.stringMatching(
      /packing is for causal language models; a florence2 is an encoder–decoder/,
    ),
  });
  expect(refused({ packing: true, groupByLength: true }).message).toMatch(/packing and groupByLength/);
  expect(refused({ packLength: 32 }).message).toMatch(/packLength has no effect without packing/);
});

import { describe, expect, test } from "vitest";
import { PeftModel } from "../../src/adapters/index.ts";
import { type StepEnd, Trainer, type TrainingOptionsInput } from "../../src/training/index.ts";
import { relativeL2 } from "../support/close.ts";
import type { RecordedStep } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { metricsOf, plainRun, referenceCase, temporaryFolder } from "./trainer-runs.ts";

const LOSS = 1e-5; // relative
const GRADIENT_NORM = 1e-4; // relative
const WEIGHTS = 1e-4; // relative L2, each tensor
const engine = sharedEngine({ threads: 1 });

/** Compares steps with those of PyTorch and PEFT. */
function expectSteps(steps: readonly StepEnd[], recorded: readonly RecordedStep[]): void {
  expect(steps.map(({ step, tokens }) => ({ step, tokens }))).toEqual(
    recorded.map(({ step, tokens }) => ({ step, tokens })),
  );
  for (const [i, { loss, gradNorm, learningRate }] of steps.entries()) {
    const expected = recorded[i]!;
    expect(Math.abs(loss / expected.loss - 1), `loss of step ${i + 1}`).toBeLessThan(LOSS);
    expect(Math.abs(gradNorm / expected.gradNorm - 1), `norm of step ${i + 1}`).toBeLessThan(GRADIENT_NORM);
    expect(learningRate, `rate of step ${i + 1}`).toBeCloseTo(expected.learningRate, 12);
  }
}

describe.each([
  "llama-qv",
  "llama-biases-linear-rope", // every bias trained
  "mistral-yarn-attention-factor", // a whole module trained
  "qwen2-tied-embedding-lora",
  "qwen3-head-dim",
])("%s", (name) => {
  test("ten steps are PyTorch's and PEFT's, and so is the evaluation after them", async () => {
    const reference = referenceCase(name);
    const { expected } = reference;
    const recorded = await reference.tensors();
    const outputDir = await temporaryFolder();
    const model = await reference.loadAdapted();
    const dataset = reference.dataset();
    const trainer = new Trainer({
      model,
      trainDataset: dataset,
      engine: engine(),
      outputDir,
      padTokenId: expected.padTokenId,
      ...plainRun,
    });
    const result = await trainer.train();
    expect(result.reason).toBe("finished");
    expectSteps(result.steps, expected.training.steps);
    for (const [key, { data }] of model.trainableParameters())
      expect(relativeL2(data!.data, recorded.get(`after.${key}`)!), key).toBeLessThan(WEIGHTS);

    const evaluation = await trainer.evaluate(dataset);
    expect(evaluation.labelTokens).toBe(expected.evaluation.after.labelTokens);
    expect(Math.abs(evaluation.loss / expected.evaluation.after.loss - 1)).toBeLessThan(LOSS);
    expect(Math.abs(evaluation.perplexity / expected.evaluation.after.perplexity - 1)).toBeLessThan(5 * LOSS);

    // One line per step, and the saved adapter is the trained one.
    expect(metricsOf(outputDir).map(({ step, loss }) => [step, loss])).toEqual(
      result.steps.map(({ step, loss }) => [step, loss]),
    );
    const loaded = await PeftModel.fromPretrained(await reference.loadBase(), result.adapter!);
    const trained = model.trainableParameters();
    const saved = loaded.stateDict();
    for (const [key, { data }] of trained)
      expect((saved.get(key) as { data: unknown }).data).toEqual(data!.data);
  });
});

describe.each(["llama-qv", "qwen2-sliding-window", "llama-llama3-rope-old-style"])("%s", (name) => {
  test("accumulation, cosine with warm-up and clipping are as in PyTorch", async () => {
    const reference = referenceCase(name);
    const { steps, options } = reference.expected.trainingAccumulated!;
    const recorded = await reference.tensors();
    const model = await reference.loadAdapted();
    const settings: TrainingOptionsInput = {
      ...plainRun,
      maxSteps: 6,
      lrSchedulerType: "cosine",
      warmupSteps: 2,
      maxGradNorm: 1,
      gradientAccumulationSteps: 2,
    };
    expect(options).toMatchObject({
      maxSteps: settings.maxSteps,
      lrScheduler: settings.lrSchedulerType,
      warmupSteps: settings.warmupSteps,
      maxGradNorm: settings.maxGradNorm,
      gradientAccumulation: settings.gradientAccumulationSteps,
      learningRate: settings.learningRate,
      weightDecay: settings.weightDecay,
      batchSize: settings.batchSize,
    });
    const trainer = new Trainer({ model, trainDataset: reference.dataset(), engine: engine(), ...settings });
    const result = await trainer.train();
    expectSteps(result.steps, steps);
    for (const [key, { data }] of model.trainableParameters())
      expect(relativeL2(data!.data, recorded.get(`accumulated.${key}`)!), key).toBeLessThan(WEIGHTS);
  });
});

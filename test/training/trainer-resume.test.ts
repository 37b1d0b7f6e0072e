import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PeftModel } from "../../src/adapters/index.ts";
import type { Dataset } from "../../src/data/index.ts";
import { TrainingError } from "../../src/errors.ts";
import type { CausalLM } from "../../src/models/index.ts";
import {
  Trainer,
  type TrainerCallback,
  type TrainerOptions,
  type TrainResult,
} from "../../src/training/index.ts";
import { sharedEngine } from "../support/run-graph.ts";
import {
  copyFolder,
  freshAdapter,
  list,
  metricsOf,
  referenceCase,
  temporaryFolder,
  weightsOf,
} from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const reference = referenceCase("llama-qv"); // seven examples
const dataset = reference.dataset();

/** Everything on that could go wrong: two and a half epochs of three, with dropout and an evaluation at every step. */
const eventful = {
  learningRate: 0.02,
  weightDecay: 0.1,
  lrSchedulerType: "cosine",
  warmupSteps: 1,
  batchSize: 2,
  gradientAccumulationSteps: 2,
  maxSteps: 6,
  evalSteps: 1,
  evalBatchSize: 3,
  saveSteps: 1,
  earlyStoppingPatience: 5,
  loadBestModelAtEnd: true,
  seed: 3,
} as const satisfies Partial<TrainerOptions>;

type Outcome = { result: TrainResult; weights: Record<string, number[]>; model: PeftModel<CausalLM> };

async function train(options: Partial<TrainerOptions> = {}): Promise<Outcome> {
  const model = await freshAdapter(reference, { loraDropout: 0.3 });
  const trainer = new Trainer({
    model,
    trainDataset: dataset,
    evalDataset: dataset,
    engine: engine(),
    ...eventful,
    ...options,
  });
  const result = await trainer.train();
  return { result, weights: weightsOf(model), model };
}

const losses = ({ result }: Outcome): number[] => result.steps.map(({ loss }) => loss);

/** Aborts in the middle of a run: after a step, before anything is made of it. */
const abortAt = (step: number): Partial<TrainerOptions> => {
  const controller = new AbortController();
  const onStepEnd: TrainerCallback["onStepEnd"] = (event) => {
    if (event.step === step) controller.abort();
  };
  return { signal: controller.signal, callbacks: [{ onStepEnd }] };
};

/** Copies the run's folder at each of its checkpoints. */
const copies = (outputDir: string, to: (step: number) => string): Partial<TrainerOptions> => ({
  outputDir,
  callbacks: [{ onSave: ({ step }) => copyFolder(outputDir, to(step)) }],
});

/** A dataset that does something when an example is read the nth time. */
function watched(from: Dataset, read: (count: number) => void): Dataset {
  let count = 0;
  return {
    name: from.name,
    length: from.length,
    get: (index) => {
      read(++count);
      return from.get(index);
    },
  };
}

describe("a run that goes on after an interruption", () => {
  test("ends bit for bit as one that was never stopped, wherever it was aborted", async () => {
    const whole = await train({ outputDir: await temporaryFolder() });
    expect(losses(whole)).toHaveLength(6);
    expect(new Set(losses(whole)).size).toBe(6);
    for (let step = 1; step <= 5; step++) {
      const outputDir = await temporaryFolder();
      const first = await train({ outputDir, ...abortAt(step) });
      expect(first.result).toMatchObject({ reason: "aborted", adapter: undefined });
      expect(first.result.checkpoint).toBe(join(outputDir, `checkpoint-${step}`));
      const rest = await train({ outputDir, resume: true });
      expect(rest.result.reason).toBe("finished");
      expect([...losses(first), ...losses(rest)]).toEqual(losses(whole));
      expect(rest.weights).toEqual(whole.weights);
      expect(rest.result.best).toEqual(whole.result.best);
      expect(metricsOf(outputDir)).toEqual(metricsOf(join(whole.result.adapter!)));
    }
  });

  test("ends bit for bit as one that was never stopped, wherever it was killed", async () => {
    const outputDir = await temporaryFolder();
    const killed = await temporaryFolder();
    const whole = await train(copies(outputDir, (step) => join(killed, String(step))));
    expect(list(killed)).toEqual(["1", "2", "3", "4", "5", "6"]);
    for (const step of list(killed)) {
      const folder = join(killed, step);
      const rest = await train({ outputDir: folder, resume: true });
      expect(rest.result.reason).toBe("finished");
      expect(losses(rest)).toEqual(losses(whole).slice(Number(step)));
      expect(rest.weights).toEqual(whole.weights);
      expect(rest.result.best).toEqual(whole.result.best);
      expect(metricsOf(folder)).toEqual(metricsOf(outputDir));
    }
  });

  test("does again what came after the last checkpoint, and logs it once", async () => {
    const folders = { whole: await temporaryFolder(), killed: await temporaryFolder() };
    const options = { saveSteps: 2, evalSteps: 2, loggingSteps: 1 };
    const whole = await train({ ...options, outputDir: folders.whole });
    const dying = train({
      ...options,
      outputDir: folders.killed,
      callbacks: [
        {
          onStepEnd: ({ step }) => {
            if (step === 6) throw new Error("killed");
          },
        },
      ],
    });
    await expect(dying).rejects.toThrow("killed");
    expect(metricsOf(folders.killed).map(({ step }) => step)).toContain(5);
    const rest = await train({ ...options, outputDir: folders.killed, resume: true });
    expect(rest.result.steps.map(({ step }) => step)).toEqual([5, 6]);
    expect(metricsOf(folders.killed)).toEqual(metricsOf(folders.whole));
    expect(rest.weights).toEqual(whole.weights);
  });

  test("makes up for an evaluation that was cut off", async () => {
    const whole = await train({ outputDir: await temporaryFolder() });
    const outputDir = await temporaryFolder();
    const controller = new AbortController();
    // Seven reads find out the order, and seven are an evaluation; the third one breaks off.
    const evalDataset = watched(dataset, (count) => count === 24 && controller.abort());
    const first = await train({ outputDir, evalDataset, signal: controller.signal });
    expect(first.result).toMatchObject({ reason: "aborted", checkpoint: join(outputDir, "checkpoint-3") });
    expect(metricsOf(outputDir).filter((line) => "eval_loss" in line)).toHaveLength(2);
    const rest = await train({ outputDir, resume: true });
    expect([...losses(first), ...losses(rest)]).toEqual(losses(whole));
    expect(rest.weights).toEqual(whole.weights);
    expect(rest.result.best).toEqual(whole.result.best);
    expect(metricsOf(outputDir)).toEqual(metricsOf(whole.result.adapter!));
  });

  test("logs the same means, however few entries there are", async () => {
    const options = { loggingSteps: 4, evalSteps: 3, saveSteps: 3 };
    const whole = await train({ ...options, outputDir: await temporaryFolder() });
    const expected = metricsOf(whole.result.adapter!);
    expect(expected.map(({ step }) => step)).toEqual([3, 4, 6, 6]);
    for (const step of [1, 2, 3, 5]) {
      const outputDir = await temporaryFolder();
      await train({ ...options, outputDir, ...abortAt(step) });
      await train({ ...options, outputDir, resume: true });
      expect(metricsOf(outputDir)).toEqual(expected);
    }
  });

  test("stops early where the uninterrupted one does, also if it was killed just then", async () => {
    const options = { earlyStoppingPatience: 3, earlyStoppingThreshold: 100 }; // no loss is that much lower
    const [outputDir, killed] = [await temporaryFolder(), await temporaryFolder()];
    const whole = await train({ ...options, ...copies(outputDir, (step) => join(killed, String(step))) });
    expect(whole.result.reason).toBe("early-stopping");
    expect(whole.result.steps).toHaveLength(4);
    expect(list(killed)).toEqual(["1", "2", "3", "4"]);
    for (const step of list(killed)) {
      const rest = await train({ ...options, outputDir: join(killed, step), resume: true });
      expect(rest.result.reason).toBe("early-stopping");
      expect(losses(rest)).toEqual(losses(whole).slice(Number(step)));
      expect(rest.weights).toEqual(whole.weights);
    }
  });

  test("ends with the best weights also if saving is rarer than evaluating", async () => {
    const options = { learningRate: 3, warmupSteps: 0, saveSteps: 5, earlyStoppingPatience: 6 };
    const [outputDir, killed] = [await temporaryFolder(), await temporaryFolder()];
    const whole = await train({ ...options, ...copies(outputDir, (step) => join(killed, String(step))) });
    const best = whole.result.best!.step;
    expect(best % 5).not.toBe(0);
    expect(list(killed)).toContain(String(best));
    for (const step of list(killed)) {
      const rest = await train({ ...options, outputDir: join(killed, step), resume: true });
      expect(rest.weights).toEqual(whole.weights);
      expect(rest.result.best).toEqual(whole.result.best);
    }
  });

  test("goes on with a checkpoint by name, also into another folder", async () => {
    const [from, to] = [await temporaryFolder(), await temporaryFolder()];
    const whole = await train({ outputDir: from });
    const rest = await train({ outputDir: join(to, "new"), resume: join(from, "checkpoint-4") });
    expect(losses(rest)).toEqual(losses(whole).slice(4));
    expect(rest.weights).toEqual(whole.weights);
  });

  test("needs no file of an old checkpoint that it deletes", async () => {
    // LoRA of an embedding saves the frozen embedding along.
    const embedding = referenceCase("llama-embedding-lora");
    const run = async (options: Partial<TrainerOptions>) => {
      const model = await freshAdapter(embedding, { targetModules: ["embed_tokens", "q_proj"] });
      const trainDataset = embedding.dataset();
      const settings = { batchSize: 2, maxSteps: 5, saveSteps: 1, evalSteps: 2, saveTotalLimit: 1 } as const;
      const trainer = new Trainer({
        model,
        trainDataset,
        evalDataset: trainDataset,
        engine: engine(),
        ...settings,
        ...options,
      });
      return { result: await trainer.train(), weights: weightsOf(model) };
    };
    const whole = await run({ outputDir: await temporaryFolder() });
    const outputDir = await temporaryFolder();
    await run({ outputDir, ...abortAt(1) });
    const rest = await run({ outputDir, resume: true });
    expect(rest.weights).toEqual(whole.weights);
    expect(list(outputDir)).not.toContain("checkpoint-1");
    const loaded = await PeftModel.fromPretrained(await embedding.loadBase(), outputDir);
    expect([...loaded.stateDict().keys()]).toContain("base_model.model.model.embed_tokens.base_layer.weight");
  });

  test("can be made longer if the learning rate is constant", async () => {
    const options = { lrSchedulerType: "constant", warmupSteps: 0 } as const;
    const whole = await train({ ...options, outputDir: await temporaryFolder() });
    const outputDir = await temporaryFolder();
    const first = await train({ ...options, outputDir, maxSteps: 4 });
    expect(first.result.reason).toBe("finished");
    const rest = await train({ ...options, outputDir, resume: true });
    expect([...losses(first), ...losses(rest)]).toEqual(losses(whole));
    expect(rest.weights).toEqual(whole.weights);
  });
});

describe("resuming is refused", () => {
  const refused = async (options: Partial<TrainerOptions>): Promise<TrainingError> => {
    const error: unknown = await train(options).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(TrainingError);
    return error as TrainingError;
  };

  test("with other settings, which are all named with both values", async () => {
    const outputDir = await temporaryFolder();
    await train({ outputDir, ...abortAt(2) });
    const before = list(outputDir);
    const error = await refused({
      outputDir,
      resume: true,
      learningRate: 0.01,
      seed: 4,
      shuffle: false,
      gradientAccumulationSteps: 1,
    });
    expect(error.code).toBe("resume-mismatch");
    expect(error.message).toMatch(/learningRate was 0\.02, is now 0\.01/);
    expect(error.message).toMatch(/seed was 3, is now 4/);
    expect(error.message).toMatch(/shuffle was true, is now false/);
    expect(error.message).toMatch(/gradientAccumulationSteps was 2, is now 1/);
    expect(list(outputDir)).toEqual(before);
  });

  test("with another adapter or other data", async () => {
    const outputDir = await temporaryFolder();
    await train({ outputDir, ...abortAt(2) });
    const shorter: Dataset = { name: "shorter", length: 6, get: (index) => dataset.get(index) };
    expect((await refused({ outputDir, resume: true, trainDataset: shorter })).message).toMatch(
      /examples was 7, is now 6/,
    );
    const other = await freshAdapter(reference, { r: 3, loraAlpha: 5, loraDropout: 0.1 });
    const { message } = await refused({ outputDir, resume: true, model: other });
    expect(message).toMatch(/r was 2, is now 3/);
    expect(message).toMatch(/loraAlpha was 4, is now 5/);
    expect(message).toMatch(/loraDropout was 0\.3, is now 0\.1/);
  });

  test("without a checkpoint", async () => {
    const outputDir = await temporaryFolder();
    expect(await refused({ outputDir, resume: true })).toMatchObject({
      code: "nothing-to-resume",
      message: expect.stringContaining(`${outputDir} has no checkpoint`),
    });
    expect(await refused({ outputDir, resume: join(outputDir, "checkpoint-3") })).toMatchObject({
      code: "nothing-to-resume",
    });
    expect(await refused({ resume: true, saveSteps: undefined })).toMatchObject({
      code: "nothing-to-resume",
    });
    expect(list(outputDir)).toEqual([]);
  });
});

import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { PeftModel } from "../../src/adapters/index.ts";
import { type Dataset, memoryDataset, openDataset } from "../../src/data/index.ts";
import { GraftError } from "../../src/errors.ts";
import type { CausalLM } from "../../src/models/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import {
  parseTrainerState,
  Trainer,
  type TrainerCallback,
  type TrainerOptions,
} from "../../src/training/index.ts";
import { sharedEngine } from "../support/run-graph.ts";
import {
  freshAdapter,
  list,
  metricsOf,
  plainRun,
  referenceCase,
  temporaryFolder,
  weightsOf,
} from "./trainer-runs.ts";

const made = vi.hoisted((): { disposed: boolean }[] => []);
vi.mock("../../src/runtime/node.ts", async (original) => {
  const runtime = await original<typeof import("../../src/runtime/node.ts")>();
  return {
    ...runtime,
    createEngine: async (options?: Parameters<typeof runtime.createEngine>[0]): Promise<Engine> => {
      const engine = await runtime.createEngine(options);
      const record = { disposed: false };
      made.push(record);
      return {
        device: engine.device,
        version: engine.version,
        createSession: (outputs, options) => engine.createSession(outputs, options),
        upload: (tensors) => engine.upload(tensors),
        dispose: () => {
          record.disposed = true;
          return engine.dispose();
        },
      };
    },
  };
});

const engine = sharedEngine({ threads: 1 });
const reference = referenceCase("llama-qv"); // seven examples of 13, 9, 16, 12, 8, 15 and 11 tokens
const dataset = reference.dataset();

type Changes = Partial<TrainerOptions>;
async function trainer(changes: Changes = {}): Promise<{ trainer: Trainer; model: PeftModel<CausalLM> }> {
  const model = (changes.model ?? (await freshAdapter(reference))) as PeftModel<CausalLM>;
  const options: TrainerOptions = {
    trainDataset: dataset,
    engine: engine(),
    batchSize: 2,
    learningRate: 0.02,
    seed: 3,
    ...changes,
    model,
  };
  return { trainer: new Trainer(options), model };
}
const train = async (changes: Changes = {}) => (await trainer(changes)).trainer.train();

/** The error that a promise rejects with. */
async function rejection(promise: Promise<unknown>): Promise<GraftError> {
  const error: unknown = await promise.then(
    () => new Error("nothing failed"),
    (error: unknown) => error,
  );
  if (error instanceof GraftError) return error;
  throw error;
}

/** A callback that keeps what it hears of. */
function recorder() {
  const events: [name: string, step: number][] = [];
  const callback: TrainerCallback = {
    onTrainBegin: ({ step }) => void events.push(["begin", step]),
    onStepEnd: ({ step }) => void events.push(["step", step]),
    onEvaluate: ({ step }) => void events.push(["evaluate", step]),
    onSave: ({ step }) => void events.push(["save", step]),
    onTrainEnd: ({ step }) => void events.push(["end", step]),
  };
  const steps = (name: string) => events.filter((event) => event[0] === name).map(([, step]) => step);
  return { callback, events, steps };
}

const stateIn = (folder: string) => {
  const file = join(folder, "trainer_state.json");
  return parseTrainerState(readFileSync(file, "utf8"), file);
};

describe("when things happen", () => {
  test("each event is told in order, with what belongs to it", async () => {
    const { callback, events } = recorder();
    const outputDir = await temporaryFolder();
    await train({
      outputDir,
      evalDataset: dataset,
      numTrainEpochs: 2,
      gradientAccumulationSteps: 2,
      callbacks: [callback],
    });
    // Four batches an epoch, in groups of two: two steps.
    const epoch = (end: number) => [
      ["step", end - 1],
      ["step", end],
      ["evaluate", end],
      ["save", end],
    ];
    expect(events).toEqual([["begin", 0], ...epoch(2), ...epoch(4), ["end", 4]]);
    expect(list(outputDir)).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "checkpoint-2",
      "checkpoint-4",
      "metrics.jsonl",
      "runs",
      "trainer_state.json",
    ]);
    expect(list(join(outputDir, "checkpoint-4"))).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "optimizer.safetensors",
      "trainer_state.json",
    ]);
    expect(stateIn(outputDir)).toMatchObject({ step: 4, epoch: 2, tokensSeen: 2 * 84 });
  });

  test.each([
    [{ evalStrategy: "no" }, [], [4, 8]],
    [{ evalStrategy: "epoch" }, [4, 8, 10], [4, 8, 10]],
    [{ evalStrategy: "steps", evalSteps: 3 }, [3, 6, 9], [4, 8, 10]],
    [{ evalSteps: 5, saveSteps: 4 }, [5, 10], [4, 8]],
    [{ saveStrategy: "no" }, [4, 8, 10], []],
  ] as const)("%j", async (options, evaluations, saves) => {
    const { callback, steps } = recorder();
    const outputDir = await temporaryFolder();
    await train({ outputDir, evalDataset: dataset, maxSteps: 10, callbacks: [callback], ...options });
    expect(steps("evaluate")).toEqual(evaluations);
    expect(steps("save")).toEqual(
      "evalStrategy" in options && options.evalStrategy === "no" ? [4, 8, 10] : saves,
    );
    expect(
      metricsOf(outputDir)
        .filter((line) => "eval_loss" in line)
        .map(({ step }) => step),
    ).toEqual(evaluations);
  });

  test("a part of an epoch is trained when that is asked for", async () => {
    const result = await train({ numTrainEpochs: 0.5 });
    expect(result.steps).toHaveLength(2);
    expect(result.epoch).toBe(0.5);
    expect(result.adapter).toBeUndefined();
  });

  test("the evaluation loss is that of an evaluation afterwards", async () => {
    const evaluations: number[] = [];
    const { trainer: it } = await trainer({
      evalDataset: dataset,
      evalSteps: 3,
      maxSteps: 3,
      evalBatchSize: 4,
      callbacks: [{ onEvaluate: ({ loss }) => void evaluations.push(loss) }],
    });
    await it.train();
    expect(evaluations).toEqual([(await it.evaluate()).loss]);
  });
});

describe("when training ends", () => {
  test.each(["onTrainBegin", "onStepEnd", "onEvaluate", "onSave"] as const)(
    "%s may ask for it, and everything is saved",
    async (name) => {
      const outputDir = await temporaryFolder();
      const result = await train({
        outputDir,
        evalDataset: dataset,
        evalSteps: 2,
        saveSteps: 2,
        maxSteps: 6,
        callbacks: [{ [name]: () => "stop" }],
      });
      expect(result.reason).toBe("callback");
      expect(result.steps).toHaveLength({ onTrainBegin: 0, onStepEnd: 1, onEvaluate: 2, onSave: 2 }[name]);
      expect(result.adapter).toBe(outputDir);
      const loaded = await PeftModel.fromPretrained(await reference.loadBase(), outputDir);
      expect(loaded.stateDict().size).toBeGreaterThan(0);
    },
  );

  test("what a callback throws comes out, and nothing is left of a run without a checkpoint", async () => {
    const outputDir = join(await temporaryFolder(), "a", "b");
    const failing = {
      onStepEnd: () => {
        throw new Error("mine");
      },
    };
    await expect(train({ outputDir, maxSteps: 3, callbacks: [failing] })).rejects.toThrow("mine");
    expect(existsSync(join(outputDir, ".."))).toBe(false);
  });

  test("early stopping, with patience, threshold, and the best weights", async () => {
    const outputDir = await temporaryFolder();
    const best: [number, Record<string, number[]>][] = [];
    const { trainer: it, model } = await trainer({
      outputDir,
      trainDataset: dataset,
      evalDataset: memoryDataset([await dataset.get(3)]), // training on the others must lose on it in the end
      learningRate: 0.3,
      lrSchedulerType: "constant",
      maxSteps: 60,
      evalSteps: 1,
      earlyStoppingPatience: 3,
      loadBestModelAtEnd: true,
      saveTotalLimit: 2,
      callbacks: [{ onEvaluate: ({ best: is, loss }) => void (is && best.push([loss, weightsOf(model)])) }],
    });
    const result = await it.train();
    expect(result.reason).toBe("early-stopping");
    const stopped = result.steps.length;
    expect(result.best?.step).toBe(stopped - 3);
    expect(result.best?.loss).toBe(best.at(-1)![0]);
    expect(weightsOf(model)).toEqual(best.at(-1)![1]);
    expect(list(outputDir).filter((name) => name.startsWith("checkpoint"))).toEqual(
      [`checkpoint-${stopped - 3}`, `checkpoint-${stopped}`].sort(),
    );
    // The adapter at the top is the best one, not the last.
    const loaded = await PeftModel.fromPretrained(await reference.loadBase(), outputDir, {
      isTrainable: true,
    });
    expect(weightsOf(loaded)).toEqual(best.at(-1)![1]);
    const last = await PeftModel.fromPretrained(
      await reference.loadBase(),
      join(outputDir, `checkpoint-${stopped}`),
      { isTrainable: true },
    );
    expect(weightsOf(last)).not.toEqual(best.at(-1)![1]);
  });

  test("without loadBestModelAtEnd the last weights stay", async () => {
    let last: unknown;
    const { trainer: it, model } = await trainer({
      evalDataset: memoryDataset([await dataset.get(3)]),
      learningRate: 0.3,
      maxSteps: 60,
      evalSteps: 1,
      earlyStoppingPatience: 3,
      callbacks: [
        {
          onStepEnd: () => {
            last = weightsOf(model);
          },
        },
      ],
    });
    expect((await it.train()).reason).toBe("early-stopping");
    expect(weightsOf(model)).toEqual(last);
  });

  test("saveTotalLimit keeps the latest ones", async () => {
    const outputDir = await temporaryFolder();
    await train({ outputDir, maxSteps: 5, saveSteps: 1, saveTotalLimit: 2 });
    expect(list(outputDir).filter((name) => name.startsWith("checkpoint"))).toEqual([
      "checkpoint-4",
      "checkpoint-5",
    ]);
  });
});

describe("aborting", () => {
  test("before it begins trains and leaves nothing", async () => {
    const outputDir = join(await temporaryFolder(), "new");
    for (const groupByLength of [false, true]) {
      const result = await train({ outputDir, groupByLength, signal: AbortSignal.abort() });
      expect(result).toMatchObject({
        reason: "aborted",
        steps: [],
        adapter: undefined,
        checkpoint: undefined,
      });
      expect(result.loss).toBeNaN();
      expect(existsSync(outputDir)).toBe(false);
    }
  });

  test("during an evaluation ends it without its end", async () => {
    const controller = new AbortController();
    let reads = 0;
    const evalDataset: Dataset = {
      ...dataset,
      get: (index) => {
        if (++reads === 2) controller.abort();
        return dataset.get(index);
      },
    };
    const { callback, steps } = recorder();
    const outputDir = await temporaryFolder();
    const result = await train({
      outputDir,
      evalDataset,
      evalSteps: 2,
      evalBatchSize: 1,
      maxSteps: 6,
      signal: controller.signal,
      callbacks: [callback],
    });
    expect(result).toMatchObject({ reason: "aborted", checkpoint: join(outputDir, "checkpoint-2") });
    expect(steps("evaluate")).toEqual([]);
    expect(steps("end")).toEqual([2]);
    expect(reads).toBeLessThan(dataset.length);
    await expect(train({ outputDir, maxSteps: 6 })).rejects.toMatchObject({ code: "unfinished-run" });
  });

  test("evaluate alone rejects with the signal's reason", async () => {
    const { trainer: it } = await trainer({ signal: AbortSignal.abort(new Error("enough")) });
    await expect(it.evaluate(dataset)).rejects.toThrow("enough");
  });
});

describe("the output folder", () => {
  test("of an unfinished run is left alone unless overwrite is set", async () => {
    const outputDir = await temporaryFolder();
    const controller = new AbortController();
    const callbacks = [{ onStepEnd: () => controller.abort() }];
    await train({ outputDir, maxSteps: 4, signal: controller.signal, callbacks });
    const before = list(outputDir);
    const error = await rejection(train({ outputDir, maxSteps: 4 }));
    expect(error.code).toBe("unfinished-run");
    expect(error.message).toContain(`${outputDir} holds an unfinished run (checkpoint-1)`);
    expect(error.message).toMatch(/--resume.*--overwrite/);
    expect(list(outputDir)).toEqual(before);
    const result = await train({ outputDir, maxSteps: 2, saveStrategy: "no", overwrite: true });
    expect(result.reason).toBe("finished");
    expect(list(outputDir)).not.toContain("checkpoint-1");
    expect(metricsOf(outputDir).map(({ step }) => step)).toEqual([1, 2]);
  });

  test("of a finished run is replaced, but for files that are not its own", async () => {
    const outputDir = await temporaryFolder();
    await train({ outputDir, maxSteps: 4, saveSteps: 1 });
    writeFileSync(join(outputDir, "notes.txt"), "mine");
    await train({ outputDir, maxSteps: 2, saveSteps: 2, learningRate: 0.01 });
    expect(list(outputDir)).toEqual([
      "adapter_config.json",
      "adapter_model.safetensors",
      "checkpoint-2",
      "metrics.jsonl",
      "notes.txt",
      "runs",
      "trainer_state.json",
    ]);
    expect(list(join(outputDir, "runs"))).toHaveLength(1);
    expect(metricsOf(outputDir).map(({ step }) => step)).toEqual([1, 2]);
  });

  test.each([
    ["a file in the way", "file"],
    ["a file as its parent", join("file", "out")],
  ])("that cannot be written fails before anything is computed: %s", async (_, place) => {
    const folder = await temporaryFolder();
    writeFileSync(join(folder, "file"), "");
    const { callback, events } = recorder();
    const error = await rejection(train({ outputDir: join(folder, place), callbacks: [callback] }));
    expect(error).toMatchObject({ name: "TrainingError", code: "output-unwritable" });
    expect(error.message).toContain(join(folder, place));
    expect(error.message).toMatch(/choose another/i);
    expect(events).toEqual([]);
    expect(list(folder)).toEqual(["file"]);
  });

  test("that is write-protected fails before anything is computed", async () => {
    const folder = await temporaryFolder();
    mkdirSync(join(folder, "closed"));
    chmodSync(join(folder, "closed"), 0o555);
    const isRoot = process.getuid?.() === 0;
    if (isRoot) {
      chmodSync(folder, 0o755);
      process.setegid!(65_534);
      process.seteuid!(65_534);
    }
    try {
      for (const outputDir of [join(folder, "closed"), join(folder, "closed", "deeper")]) {
        const error = await rejection(train({ outputDir }));
        expect(error).toMatchObject({ name: "TrainingError", code: "output-unwritable" });
        expect(error.message).toContain(outputDir);
      }
    } finally {
      if (isRoot) {
        process.seteuid!(0);
        process.setegid!(0);
      }
    }
    expect(list(join(folder, "closed"))).toEqual([]);
  });
});

describe("training that cannot go on", () => {
  test.each([false, true])(
    "a loss that is not finite is named, and nothing is left on disk (%s)",
    async (exists) => {
      const folder = await temporaryFolder();
      const outputDir = exists ? folder : join(folder, "new");
      const model = await freshAdapter(reference);
      const [first] = model.trainableParameters().values();
      first!.data!.data.fill(Number.POSITIVE_INFINITY);
      const error = await rejection(train({ outputDir, model }));
      expect(error).toMatchObject({ name: "TrainingError", code: "diverged", details: { step: 1 } });
      expect(error.message).toMatch(/^The loss is NaN at step 1\. Lower the learning rate \(now 0\.02\)/);
      expect(list(folder)).toEqual([]);
    },
  );

  test("an absurd learning rate diverges later, and the message has the loss before", async () => {
    const folder = await temporaryFolder();
    const outputDir = join(folder, "new");
    const error = await rejection(
      train({
        outputDir,
        model: await freshAdapter(reference, { initLoraWeights: false }),
        learningRate: 1e30,
        maxSteps: 9,
        saveStrategy: "no",
      }),
    );
    expect(error.code).toBe("diverged");
    expect(error.message).toMatch(
      /is (NaN|-?Infinity) at step [2-9] \(the loss was \d+\.\d{4} a step before\)/,
    );
    expect(list(folder)).toEqual([]);
  });

  test("checkpoints from before stay", async () => {
    const outputDir = await temporaryFolder();
    const { trainer: it, model } = await trainer({
      outputDir,
      maxSteps: 9,
      saveSteps: 1,
      callbacks: [
        {
          onSave: ({ step }) => {
            if (step === 2)
              for (const { data } of model.trainableParameters().values()) data!.data.fill(Infinity);
          },
        },
      ],
    });
    expect((await rejection(it.train())).code).toBe("diverged");
    expect(list(outputDir)).toEqual(["checkpoint-1", "checkpoint-2", "metrics.jsonl", "runs"]);
  });

  test("a step without labels is named by its examples", async () => {
    const outputDir = join(await temporaryFolder(), "new");
    const silent = await dataset.get(0);
    const trainDataset = memoryDataset(
      [await dataset.get(1), await dataset.get(2), { ...silent, labels: silent.labels.map(() => -100) }],
      "some data",
    );
    const options = { outputDir, trainDataset, shuffle: false, numTrainEpochs: 1 };
    const error = await rejection(train({ ...options, batchSize: 1 }));
    expect(error).toMatchObject({ name: "DataError", code: "no-labels" });
    expect(error.message).toContain("step 3 has nothing to learn: no token of example 3 has a label");
    expect(existsSync(outputDir)).toBe(false);
    // Together with a labelled batch it does no harm.
    const accumulated = await train({ ...options, batchSize: 1, gradientAccumulationSteps: 3 });
    const alone = await train({
      ...options,
      trainDataset: memoryDataset([await dataset.get(1), await dataset.get(2)]),
      gradientAccumulationSteps: 2,
      batchSize: 1,
      overwrite: true,
    });
    expect(accumulated.steps[0]!.loss).toBe(alone.steps[0]!.loss);
  });

  test("data errors come with file and line and leave no folder", async () => {
    const folder = await temporaryFolder();
    const file = join(folder, "rows.jsonl");
    const line = (ids: number[]) => `${JSON.stringify({ input_ids: ids })}\n`;
    const outputDir = join(folder, "new");
    const run = async (trainDataset: Dataset) => {
      try {
        return await train({ outputDir, trainDataset, shuffle: false, batchSize: 1, saveStrategy: "no" });
      } finally {
        await trainDataset.close?.();
      }
    };

    writeFileSync(file, `${line([3, 4, 5])}${line([6, 7])}{"input_ids": "3 4"}\n`);
    const broken = await rejection(run(await openDataset(file)));
    expect(broken.name).toBe("DataError");
    expect(broken.message).toContain(`${file}:3`);
    expect(existsSync(outputDir)).toBe(false);

    writeFileSync(file, `${line([3, 4, 5])}${line([6, 96, 7])}`);
    const beyond = await rejection(run(await openDataset(file)));
    expect(beyond.message).toBe(
      `${file}:2: the token at position 1 is 96, outside the vocabulary (0 to 95). Tokenize with the tokenizer that belongs to the model.`,
    );
    expect(beyond.code).toBe("token-out-of-range");
    expect(existsSync(outputDir)).toBe(false);

    const labels = await rejection(run(memoryDataset([{ inputIds: [3, 4], labels: [3, -1] }], "rows")));
    expect(labels.message).toContain("rows, example 1: the label at position 1 is -1");
  });

  test("no examples, nothing to train, wrong options", async () => {
    const model = await freshAdapter(reference);
    expect(() => new Trainer({ model, trainDataset: memoryDataset([], "empty") })).toThrow(
      "empty: there are no examples to train on.",
    );
    expect(
      () => new Trainer({ model, trainDataset: dataset, learningRate: -1, epochs: 2 } as TrainerOptions),
    ).toThrow(/2 problems.*learningRate.*use numTrainEpochs/s);
    const frozen = await PeftModel.fromPretrained(await reference.loadBase(), reference.adapterPath);
    expect(() => new Trainer({ model: frozen, trainDataset: dataset })).toThrow(
      /no trainable parameters.*isTrainable/,
    );
    const { trainer: it } = await trainer();
    await expect(it.evaluate()).rejects.toMatchObject({ code: "no-evaluation-data" });
  });
});

describe("which examples make a batch", () => {
  /** Numbers of tokens of each step. */
  const tokens = async (changes: Changes) =>
    (await train({ batchSize: 1, ...changes })).steps.map((step) => step.tokens);
  const inOrder = [13, 9, 16, 12, 8, 15, 11];

  test("shuffle: another order every epoch and for every seed", async () => {
    const order = await tokens({ numTrainEpochs: 2 });
    const sorted = (lengths: number[]) => lengths.toSorted((a, b) => a - b);
    expect(sorted(order.slice(0, 7))).toEqual(sorted(inOrder));
    expect(sorted(order.slice(7))).toEqual(sorted(inOrder));
    expect(order.slice(0, 7)).not.toEqual(order.slice(7));
    expect(order.slice(0, 7)).not.toEqual(inOrder);
    expect(await tokens({ numTrainEpochs: 2, seed: 4 })).not.toEqual(order);
    expect(await tokens({ numTrainEpochs: 1, shuffle: false })).toEqual(inOrder);
  });

  test("groupByLength: similar lengths together", async () => {
    const many = memoryDataset(
      Array.from({ length: 32 }, (_, i) => {
        const inputIds = Array<number>(2 + (i % 8)).fill(5);
        return { inputIds, labels: inputIds };
      }),
    );
    const padded = async (groupByLength: boolean) => {
      const sizes: number[] = [];
      const watching: Dataset = {
        ...many,
        get: async (index) => {
          const example = await many.get(index);
          sizes.push(example.inputIds.length);
          return example;
        },
      };
      await train({ trainDataset: watching, numTrainEpochs: 1, batchSize: 2, groupByLength });
      const reads = sizes.slice(-32); // grouping reads every length first
      return Array.from({ length: 16 }, (_, i) => Math.abs(reads[2 * i]! - reads[2 * i + 1]!)).reduce(
        (a, b) => a + b,
      );
    };
    expect(await padded(true)).toBeLessThan((await padded(false)) / 2);
  });

  test("maxLength cuts examples", async () => {
    expect(await tokens({ numTrainEpochs: 1, shuffle: false, maxLength: 10 })).toEqual([
      10, 9, 10, 10, 8, 10, 10,
    ]);
    const { trainer: it } = await trainer({ maxLength: 10 });
    const evaluation = await it.evaluate(memoryDataset([await dataset.get(0)]));
    expect(evaluation.labelTokens).toBe(9);
  });
});

describe("the engine", () => {
  test("that it makes is disposed of, after success and after failure; a given one is not", async () => {
    made.splice(0);
    await train({ engine: undefined, maxSteps: 1, shuffle: false });
    const broken: Dataset = { name: "broken", length: 2, get: () => Promise.reject(new Error("unreadable")) };
    await expect(train({ engine: undefined, trainDataset: broken })).rejects.toThrow("unreadable");
    await (await trainer({ engine: undefined })).trainer.evaluate(dataset);
    expect(made).toEqual([{ disposed: true }, { disposed: true }, { disposed: true }]);
    made.splice(0);
    await train({ maxSteps: 1 });
    expect(made).toEqual([]);
  });
});

test("the same seed trains the same, another one does not", async () => {
  const run = async (seed: number) => {
    const { trainer: it, model } = await trainer({
      model: await freshAdapter(reference, { loraDropout: 0.5 }),
      ...plainRun,
      maxSteps: 3,
      seed,
    });
    await it.train();
    return weightsOf(model);
  };
  const first = await run(1);
  expect(await run(1)).toEqual(first);
  expect(await run(2)).not.toEqual(first); // the order is fixed: only dropout differs
});

import { describe, expect, it } from "vitest";
import {
  optionsFingerprint,
  resolveTrainingOptions,
  type TrainingOptionsInput,
  trainingOptionsSchema,
} from "../../src/training/options.ts";
import { readVectors } from "./vectors.ts";

const withEval = (input: TrainingOptionsInput) => resolveTrainingOptions(input, { hasEvalData: true });
const withoutEval = (input: TrainingOptionsInput) => resolveTrainingOptions(input, { hasEvalData: false });
const problemsOf = (run: () => unknown): string[] => {
  try {
    run();
  } catch (error) {
    return (error as { details: { problems: string[] } }).details.problems;
  }
  return [];
};

describe("training options", () => {
  it("have defaults that make a complete run", () => {
    expect(withoutEval({})).toEqual({
      learningRate: 2e-4,
      weightDecay: 0,
      modelDropout: false,
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      maxGradNorm: 1,
      lrSchedulerType: "linear",
      warmupSteps: 0,
      warmupRatio: 0,
      numTrainEpochs: 3,
      batchSize: 8,
      evalBatchSize: 8,
      gradientAccumulationSteps: 1,
      evalStrategy: "no",
      saveStrategy: "no",
      loadBestModelAtEnd: false,
      earlyStoppingThreshold: 0,
      loggingSteps: 1,
      seed: 42,
      shuffle: true,
      groupByLength: false,
      packing: false,
      padToMultipleOf: 1,
      paddingSide: "right",
      baseDtype: "fp32",
      prefixCache: "auto",
      prefixCacheDtype: "float32",
      gradientCheckpointing: "auto",
    });
  });

  it("have transformers' defaults but for the few that say otherwise", () => {
    const reference = readVectors<Record<string, unknown>>("training-arguments.json");
    const ours: Record<string, unknown> = withoutEval({});
    const differing = Object.keys(reference).filter((name) => {
      const camel = name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
      return camel in ours && ours[camel] !== reference[name];
    });
    expect(differing.sort()).toEqual([
      "gradient_checkpointing", // off without a limit, as there
      "learning_rate",
      "logging_steps",
      "save_strategy",
    ]);
  });

  it("ignore values that are undefined, as a command line passes them", () => {
    expect(withoutEval({ learningRate: undefined, evalSteps: undefined } as object)).toEqual(withoutEval({}));
  });

  it.each([
    [{}, { evalStrategy: "epoch", saveStrategy: "no" }],
    [{ outputDir: "out" }, { evalStrategy: "epoch", saveStrategy: "epoch" }],
    [{ evalSteps: 5 }, { evalStrategy: "steps", evalSteps: 5 }],
    [
      { outputDir: "out", saveSteps: 7 },
      { saveStrategy: "steps", saveSteps: 7 },
    ],
    [
      { outputDir: "out", evalSteps: 5, loadBestModelAtEnd: true },
      { saveStrategy: "steps", saveSteps: 5 },
    ],
    [{ outputDir: "out", loadBestModelAtEnd: true }, { saveStrategy: "epoch" }],
    [{ evalStrategy: "no" }, { evalStrategy: "no" }],
    [{ batchSize: 3 }, { evalBatchSize: 3 }],
  ] satisfies [TrainingOptionsInput, object][])("%j mean %j", (input, expected) => {
    expect(withEval(input)).toMatchObject(expected);
  });

  it("report all bad values at once, each with what is allowed and what was given", () => {
    expect(() =>
      withEval({
        learningRate: 0,
        adamBeta1: 1,
        batchSize: 2.5,
        lrSchedulerType: "cos" as "cosine",
        seed: -1,
        shuffle: "yes" as never,
      }),
    ).toThrow(
      [
        "Training options have 6 problems:",
        "- learningRate must be a finite number greater than 0, got 0",
        "- adamBeta1 must be at least 0 and less than 1, got 1",
        '- lrSchedulerType must be "constant" or "constant_with_warmup" or "linear" or "cosine", got "cos"',
        "- batchSize must be a whole number of at least 1, got 2.5",
        "- seed must be a whole number from 0 to 2³² − 1, got -1",
        '- shuffle must be true or false, got "yes"',
      ].join("\n"),
    );
  });

  it.each([
    ["learning_rate", "there is no option learning_rate; use learningRate"],
    ["perDeviceTrainBatchSize", "there is no option perDeviceTrainBatchSize; use batchSize"],
    ["per_device_eval_batch_size", "there is no option per_device_eval_batch_size; use evalBatchSize"],
    ["warmupStep", "there is no option warmupStep; use warmupSteps"],
    ["maxSeqLength", "there is no option maxSeqLength; use maxLength"],
    ["loraDropout", "loraDropout is not a training option: it is the adapter's, loraDropout of LoraConfig"],
    ["zzzzzzzzzzzzzzzzz", "there is no option zzzzzzzzzzzzzzzzz"],
  ])("answer an unknown %s with the name to use", (key, problem) => {
    expect(problemsOf(() => withEval({ [key]: 1 } as object))).toEqual([problem]);
  });

  it.each([
    [
      withEval,
      { warmupSteps: 5, warmupRatio: 0.1 },
      ["warmupSteps and warmupRatio say the same thing twice; give one of them"],
    ],
    [
      withEval,
      { maxSteps: 5, numTrainEpochs: 1 },
      ["maxSteps and numTrainEpochs both say when to end; give one of them"],
    ],
    [
      withoutEval,
      { earlyStoppingPatience: 2, loadBestModelAtEnd: true },
      ["earlyStoppingPatience, loadBestModelAtEnd need evaluation data; pass evalDataset"],
    ],
    [withoutEval, { evalStrategy: "epoch" }, ["evalStrategy needs evaluation data; pass evalDataset"]],
    [
      withEval,
      { evalStrategy: "no", earlyStoppingPatience: 2 },
      ['earlyStoppingPatience cannot work with evalStrategy "no"; use "steps" or "epoch"'],
    ],
    [
      withEval,
      { earlyStoppingThreshold: 0.1 },
      ["earlyStoppingThreshold has no effect without earlyStoppingPatience; set that too"],
    ],
    [withEval, { evalStrategy: "steps" }, ['evalStrategy "steps" needs evalSteps; say how many']],
    [
      withEval,
      { evalStrategy: "epoch", evalSteps: 3 },
      ['evalSteps contradicts evalStrategy "epoch"; leave one of them out, or use "steps"'],
    ],
    [withEval, { saveSteps: 3 }, ["saveSteps needs a folder to save to; set outputDir"]],
    [
      withEval,
      { outputDir: "o", saveStrategy: "steps" },
      ['saveStrategy "steps" needs saveSteps; say how many'],
    ],
    [
      withEval,
      { outputDir: "o", saveStrategy: "no", saveTotalLimit: 2 },
      ['saveTotalLimit has no effect with saveStrategy "no"; leave one of them out'],
    ],
    [
      withEval,
      { outputDir: "o", evalSteps: 4, saveSteps: 6, loadBestModelAtEnd: true },
      ["loadBestModelAtEnd needs saveSteps (6) to be a multiple of evalSteps (4)"],
    ],
    [
      withEval,
      { outputDir: "o", evalSteps: 4, saveStrategy: "epoch", loadBestModelAtEnd: true },
      [
        'loadBestModelAtEnd needs every evaluated model saved, but evalStrategy is "steps" and saveStrategy "epoch"; make them equal',
      ],
    ],
    [
      withEval,
      { groupByLength: true, shuffle: false },
      ["groupByLength changes the order of examples, which shuffle false forbids; leave one of them out"],
    ],
  ] satisfies [typeof withEval, TrainingOptionsInput, string[]][])(
    "cannot contradict each other (%#)",
    (resolve, input, problems) => {
      expect(problemsOf(() => resolve(input))).toEqual(problems);
    },
  );

  it("are all documented", () => {
    for (const [name, field] of Object.entries(trainingOptionsSchema.shape))
      expect(field.description, name).toMatch(/^[A-Z].+\.$/);
  });

  it("resolve to what resolves to itself", () => {
    const {
      warmupRatio: _,
      numTrainEpochs: __,
      earlyStoppingThreshold: ___,
      ...once
    } = withEval({ outputDir: "o", evalSteps: 2, saveSteps: 4, maxSteps: 9 });
    expect(withEval(once)).toEqual(withEval({ ...once }));
    expect(withEval(once)).toMatchObject(once);
  });
});

describe("optionsFingerprint", () => {
  it("holds the length of training only where the learning rate depends on it", () => {
    const extended = { numTrainEpochs: 5 };
    const same = (input: TrainingOptionsInput) =>
      JSON.stringify(optionsFingerprint(withEval(input))) ===
      JSON.stringify(optionsFingerprint(withEval({ ...input, ...extended })));
    expect(same({ lrSchedulerType: "constant", warmupSteps: 3 })).toBe(true);
    expect(same({ lrSchedulerType: "constant", warmupRatio: 0.1 })).toBe(false);
    expect(same({ lrSchedulerType: "cosine" })).toBe(false);
  });

  it("changes with everything that changes results, and with nothing else", () => {
    const base = JSON.stringify(optionsFingerprint(withEval({})));
    const changes: TrainingOptionsInput[] = [
      { learningRate: 1 },
      { weightDecay: 1 },
      { adamBeta1: 0 },
      { adamBeta2: 0 },
      { adamEpsilon: 1 },
      { maxGradNorm: 0 },
      { lrSchedulerType: "cosine" },
      { warmupSteps: 1 },
      { warmupRatio: 0.5 },
      { numTrainEpochs: 1 },
      { maxSteps: 1 },
      { batchSize: 1 },
      { gradientAccumulationSteps: 2 },
      { seed: 1 },
      { shuffle: false },
      { groupByLength: true },
      { packing: true },
      { padToMultipleOf: 8 },
      { maxLength: 9 },
    ];
    for (const change of changes) expect(JSON.stringify(optionsFingerprint(withEval(change)))).not.toBe(base);
    const harmless: TrainingOptionsInput[] = [
      { outputDir: "o" },
      { evalSteps: 3 },
      { loggingSteps: 10 },
      { evalBatchSize: 1 },
      { earlyStoppingPatience: 1 },
    ];
    for (const change of harmless) expect(JSON.stringify(optionsFingerprint(withEval(change)))).toBe(base);
  });
});

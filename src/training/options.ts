import { z } from "zod";
import { nearest, TrainingError } from "../errors.ts";
import { schedulerTypes } from "./schedules.ts";
import type { JsonValue } from "./state.ts";

const number = (expectation: string, accepts: (value: number) => boolean) =>
  z.custom<number>((value) => typeof value === "number" && accepts(value), {
    error: `must be ${expectation}`,
  });
const atLeast0 = () => number("a finite number of at least 0", (n) => n >= 0 && n < Infinity);
const above0 = () => number("a finite number greater than 0", (n) => n > 0 && n < Infinity);
const fraction = () => number("at least 0 and less than 1", (n) => n >= 0 && n < 1);
const count = (minimum: number) =>
  number(`a whole number of at least ${minimum}`, (n) => Number.isSafeInteger(n) && n >= minimum);
const boolean = () => z.boolean({ error: "must be true or false" });
const choice = <const T extends readonly string[]>(...values: T) =>
  z.enum(values, { error: `must be ${values.map((value) => `"${value}"`).join(" or ")}` });

/**
 * Options of training, named as in transformers' TrainingArguments, in camelCase; `batchSize` and
 * `evalBatchSize` stand for `per_device_train_batch_size` and `per_device_eval_batch_size`. Defaults are
 * transformers' too, except where the description says otherwise. Each description is also the help text.
 */
export const trainingOptionsSchema = z.strictObject({
  learningRate: above0()
    .default(2e-4)
    .describe("Peak learning rate. 2e-4 suits LoRA; transformers' 5e-5 is meant for training all weights."),
  weightDecay: atLeast0()
    .default(0)
    .describe("Weight decay of AdamW, on everything that is trained, as in torch.optim.AdamW."),
  adamBeta1: fraction().default(0.9).describe("Decay rate of AdamW's mean of gradients."),
  adamBeta2: fraction().default(0.999).describe("Decay rate of AdamW's mean of squared gradients."),
  adamEpsilon: atLeast0().default(1e-8).describe("Added to AdamW's denominator."),
  maxGradNorm: atLeast0()
    .default(1)
    .describe("Gradients are scaled down to this joint 2-norm; 0 turns that off."),
  lrSchedulerType: choice(...schedulerTypes)
    .default("linear")
    .describe("How the learning rate changes: constant, or falling to 0 along a line or a half cosine."),
  warmupSteps: count(0).default(0).describe("Optimizer steps over which the learning rate rises from 0."),
  warmupRatio: fraction().default(0).describe("The same as a share of all steps; give one of the two."),
  numTrainEpochs: above0().default(3).describe("Passes over the data; 0.5 is half of one."),
  maxSteps: count(1).optional().describe("Optimizer steps to make, instead of numTrainEpochs."),
  batchSize: count(1).default(8).describe("Examples per batch; with packing, rows."),
  evalBatchSize: count(1).optional().describe("Examples per batch in evaluation. Default: batchSize."),
  gradientAccumulationSteps: count(1)
    .default(1)
    .describe("Batches whose gradients are summed before the weights change once."),
  evalStrategy: choice("no", "steps", "epoch")
    .optional()
    .describe(
      'When to evaluate. Default: "steps" if evalSteps is given, else "epoch", given evaluation data.',
    ),
  evalSteps: count(1).optional().describe("Optimizer steps between evaluations."),
  saveStrategy: choice("no", "steps", "epoch")
    .optional()
    .describe('When to save. Default: "steps" if saveSteps is given, else "epoch", given outputDir.'),
  saveSteps: count(1).optional().describe("Optimizer steps between checkpoints."),
  saveTotalLimit: count(1)
    .optional()
    .describe("Checkpoints to keep; the latest and the best are always kept. Default: all."),
  outputDir: z
    .string({ error: "must be the path of a folder" })
    .min(1, "must be the path of a folder")
    .optional()
    .describe("Folder for checkpoints and the trained adapter. Without it nothing is saved."),
  loadBestModelAtEnd: boolean()
    .default(false)
    .describe(
      "End with the weights of the lowest evaluation loss rather than the last ones; a checkpoint of them is kept.",
    ),
  earlyStoppingPatience: count(1)
    .optional()
    .describe("Stop after this many evaluations without a lower loss. Default: never."),
  earlyStoppingThreshold: atLeast0()
    .default(0)
    .describe("How much lower the loss must be to count, for earlyStoppingPatience."),
  loggingSteps: count(1)
    .default(1)
    .describe(
      "Optimizer steps between log entries, which hold the mean loss since the last one. " +
        "transformers has 500; runs on one machine are often shorter than that, and a line per step is small.",
    ),
  seed: number("a whole number from 0 to 2³² − 1", (n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32)
    .default(42)
    .describe("Seed of initial weights, order of examples and dropout."),
  modelDropout: boolean()
    .default(false)
    .describe(
      "Also drop what the model's config.json says (dropout, drop_path_rate), as transformers does in training. Without it the model computes as in evaluation, and only the adapter's own dropout applies.",
    ),
  shuffle: boolean().default(true).describe("Visit the examples in a new random order every epoch."),
  groupByLength: boolean()
    .default(false)
    .describe("Put examples of similar length into the same batch: less padding, a less random order."),
  packing: boolean()
    .default(false)
    .describe(
      "Put several short examples into one row, where they do not see each other: hardly any padding, and fewer, fuller batches. For causal models.",
    ),
  packLength: count(2)
    .optional()
    .describe(
      "Tokens up to which packing fills a row; a longer example has a row of its own. Default: those of the longest example.",
    ),
  padToMultipleOf: count(1)
    .default(1)
    .describe("Pad rows to a multiple of this many tokens, so that fewer shapes occur."),
  paddingSide: choice("right", "left")
    .default("right")
    .describe("Where shorter examples of a batch are padded."),
  baseDtype: choice("fp32", "int8", "int4")
    .default("fp32")
    .describe(
      "Precision of the frozen weights of linear layers: int8 for speed, int4 for memory; adapters, norms and the loss stay float32. Each layer is checked with an example, and stays float32 where the error would be large.",
    ),
  prefixCache: choice("auto", "off", "memory", "disk")
    .default("auto")
    .describe(
      'Compute everything below the lowest adapted layer once per example, and keep it in memory or on disk for later epochs. "auto" decides by what it saves and by the room there is.',
    ),
  prefixCacheDtype: choice("float32", "float16", "bfloat16")
    .default("float32")
    .describe("How it is kept: float32 gives the same losses as without, the others take half the room."),
  prefixCacheLimit: above0()
    .optional()
    .describe("The most it may take, in GB. Default: half of what is free."),
  prefixCacheDir: z
    .string({ error: "must be the path of a folder" })
    .min(1, "must be the path of a folder")
    .optional()
    .describe(
      "Folder for what is kept on disk, for later runs too. Default: one in outputDir, removed at the end.",
    ),
  gradientCheckpointing: z
    .union([z.literal("auto"), z.boolean()], { error: 'must be "auto", true or false' })
    .default("auto")
    .describe(
      'Keep of a block of the model only what enters it, and compute the rest again in the backward pass: less memory for more time, and the same results. "auto" does so with as few blocks as memoryLimit needs, and none without one; true with all blocks.',
    ),
  memoryLimit: above0()
    .optional()
    .describe("Bytes that training may take, by its estimate, for gradientCheckpointing. Default: no limit."),
  maxLength: count(2)
    .optional()
    .describe(
      "Longest example, in tokens; longer ones are cut. Default: none; the command line takes the model's limit for examples made from text.",
    ),
});

/** Options as given: everything may be left out. */
export type TrainingOptionsInput = z.input<typeof trainingOptionsSchema>;

type Parsed = z.output<typeof trainingOptionsSchema>;
type Strategy = "no" | "steps" | "epoch";

/** Options with every default filled in. */
export type TrainingOptions = Omit<Parsed, "evalBatchSize" | "evalStrategy" | "saveStrategy"> & {
  evalBatchSize: number;
  evalStrategy: Strategy;
  saveStrategy: Strategy;
};

/**
 * Checks options and fills in defaults.
 * @param hasEvalData whether there is data to evaluate on; without it nothing is evaluated, and options that
 * need an evaluation are a mistake.
 * @throws TrainingError with everything that is wrong or contradictory, and what to write instead;
 * `details.problems` has the list.
 */
export function resolveTrainingOptions(
  input: TrainingOptionsInput,
  { hasEvalData }: { hasEvalData: boolean },
): TrainingOptions {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
  const result = trainingOptionsSchema.safeParse(given);
  const problems = result.success ? [] : result.error.issues.flatMap((issue) => describe(issue, given));
  if (!result.success) throw invalid(problems);

  const has = (...names: (keyof TrainingOptionsInput)[]) => names.filter((name) => name in given);
  const parsed = result.data;
  const { loadBestModelAtEnd, outputDir } = parsed;
  if (has("warmupSteps").length > 0 && has("warmupRatio").length > 0)
    problems.push("warmupSteps and warmupRatio say the same thing twice; give one of them");
  if (has("maxSteps").length > 0 && has("numTrainEpochs").length > 0)
    problems.push("maxSteps and numTrainEpochs both say when to end; give one of them");

  const needEval = has("evalSteps", "earlyStoppingPatience");
  if (loadBestModelAtEnd) needEval.push("loadBestModelAtEnd");
  if (parsed.evalStrategy !== undefined && parsed.evalStrategy !== "no") needEval.push("evalStrategy");
  if (!hasEvalData && needEval.length > 0)
    problems.push(
      `${needEval.join(", ")} need${needEval.length === 1 ? "s" : ""} evaluation data; pass evalDataset`,
    );
  if (hasEvalData && parsed.evalStrategy === "no" && needEval.length > 0)
    problems.push(`${needEval.join(", ")} cannot work with evalStrategy "no"; use "steps" or "epoch"`);
  if (has("earlyStoppingThreshold").length > 0 && has("earlyStoppingPatience").length === 0)
    problems.push("earlyStoppingThreshold has no effect without earlyStoppingPatience; set that too");
  const evalStrategy: Strategy = hasEvalData
    ? (parsed.evalStrategy ?? (parsed.evalSteps === undefined ? "epoch" : "steps"))
    : "no";
  problems.push(
    ...strategyProblems("eval", hasEvalData ? evalStrategy : parsed.evalStrategy, parsed.evalSteps),
  );

  const needOutput = has("saveSteps", "saveTotalLimit");
  if (parsed.saveStrategy !== undefined && parsed.saveStrategy !== "no") needOutput.push("saveStrategy");
  if (outputDir === undefined && needOutput.length > 0)
    problems.push(
      `${needOutput.join(", ")} need${needOutput.length === 1 ? "s" : ""} a folder to save to; set outputDir`,
    );
  const followEval = loadBestModelAtEnd && has("saveSteps", "saveStrategy").length === 0;
  const saveSteps = followEval ? parsed.evalSteps : parsed.saveSteps;
  const saveStrategy: Strategy =
    outputDir === undefined
      ? "no"
      : followEval
        ? evalStrategy
        : (parsed.saveStrategy ?? (saveSteps === undefined ? "epoch" : "steps"));
  if (outputDir !== undefined) problems.push(...strategyProblems("save", saveStrategy, saveSteps));
  if (saveStrategy === "no" && outputDir !== undefined && has("saveTotalLimit").length > 0)
    problems.push('saveTotalLimit has no effect with saveStrategy "no"; leave one of them out');
  if (loadBestModelAtEnd && hasEvalData && saveStrategy !== "no") {
    if (saveStrategy !== evalStrategy)
      problems.push(
        `loadBestModelAtEnd needs every evaluated model saved, but evalStrategy is "${evalStrategy}" and ` +
          `saveStrategy "${saveStrategy}"; make them equal`,
      );
    else if (saveStrategy === "steps" && saveSteps! % parsed.evalSteps! !== 0)
      problems.push(
        `loadBestModelAtEnd needs saveSteps (${saveSteps}) to be a multiple of evalSteps (${parsed.evalSteps})`,
      );
  }
  if (parsed.groupByLength && has("shuffle").length > 0 && !parsed.shuffle)
    problems.push(
      "groupByLength changes the order of examples, which shuffle false forbids; leave one of them out",
    );
  if (parsed.packing && parsed.groupByLength)
    problems.push("packing and groupByLength both decide which examples come together; give one of them");
  if (has("packLength").length > 0 && !parsed.packing)
    problems.push("packLength has no effect without packing; set that too");
  problems.push(...prefixCacheProblems(parsed, has));
  if (parsed.memoryLimit !== undefined && parsed.gradientCheckpointing === false)
    problems.push("memoryLimit has no effect with gradientCheckpointing false; leave one of them out");
  if (problems.length > 0) throw invalid(problems);

  const { evalSteps: _, saveSteps: __, ...rest } = parsed;
  return {
    ...rest,
    evalBatchSize: parsed.evalBatchSize ?? parsed.batchSize,
    evalStrategy,
    ...(evalStrategy === "steps" && { evalSteps: parsed.evalSteps! }),
    saveStrategy,
    ...(saveStrategy === "steps" && { saveSteps: saveSteps! }),
  };
}

/**
 * The options that a resumed run must share with the saved one for its results to be those of a run that never
 * stopped; for `TrainerState.fingerprint`. How long to train is among them only where the learning rate depends
 * on it, so a run with a constant rate can be made longer.
 */
export function optionsFingerprint(options: TrainingOptions): Record<string, JsonValue> {
  const { lrSchedulerType, warmupRatio } = options;
  const lengthMatters = lrSchedulerType === "linear" || lrSchedulerType === "cosine" || warmupRatio > 0;
  return {
    learningRate: options.learningRate,
    weightDecay: options.weightDecay,
    adamBeta1: options.adamBeta1,
    adamBeta2: options.adamBeta2,
    adamEpsilon: options.adamEpsilon,
    maxGradNorm: options.maxGradNorm,
    lrSchedulerType,
    warmupSteps: options.warmupSteps,
    warmupRatio,
    ...(lengthMatters && { numTrainEpochs: options.numTrainEpochs, maxSteps: options.maxSteps ?? null }),
    batchSize: options.batchSize,
    gradientAccumulationSteps: options.gradientAccumulationSteps,
    seed: options.seed,
    modelDropout: options.modelDropout,
    shuffle: options.shuffle,
    groupByLength: options.groupByLength,
    ...(options.packing && { packing: true, packLength: options.packLength ?? null }),
    padToMultipleOf: options.padToMultipleOf,
    paddingSide: options.paddingSide,
    maxLength: options.maxLength ?? null,
    ...(options.baseDtype !== "fp32" && { baseDtype: options.baseDtype }),
    ...(options.prefixCache !== "off" &&
      options.prefixCacheDtype !== "float32" && { prefixCacheDtype: options.prefixCacheDtype }),
  };
}

/** Options of the prefix cache that contradict each other, or have no effect. */
function prefixCacheProblems(
  { prefixCache: mode, outputDir, prefixCacheDir, paddingSide }: Parsed,
  has: (...names: (keyof TrainingOptionsInput)[]) => string[],
): string[] {
  const problems: string[] = [];
  const idle = has("prefixCacheDtype", "prefixCacheLimit", "prefixCacheDir");
  if (mode === "off" && idle.length > 0)
    problems.push(
      `${idle.join(", ")} ${idle.length === 1 ? "has" : "have"} no effect with prefixCache "off"`,
    );
  if (mode === "memory" && prefixCacheDir !== undefined)
    problems.push('prefixCacheDir has no effect with prefixCache "memory"; leave one of them out');
  if (mode === "disk" && outputDir === undefined && prefixCacheDir === undefined)
    problems.push('prefixCache "disk" needs a folder; set outputDir or prefixCacheDir');
  if (paddingSide === "left" && (mode === "memory" || mode === "disk"))
    problems.push(
      `prefixCache "${mode}" needs paddingSide "right": with padding on the left, an example's positions depend on its batch`,
    );
  return problems;
}

/** What is wrong with how often something is done. */
function strategyProblems(
  what: "eval" | "save",
  strategy: Strategy | undefined,
  steps: number | undefined,
): string[] {
  if (strategy === "steps" && steps === undefined)
    return [`${what}Strategy "steps" needs ${what}Steps; say how many`];
  if (strategy !== undefined && strategy !== "steps" && steps !== undefined)
    return [`${what}Steps contradicts ${what}Strategy "${strategy}"; leave one of them out, or use "steps"`];
  return [];
}

/** Names that other tools, or other parts of Graft, use for an option. */
const otherNames: Record<string, string> = {
  perDeviceTrainBatchSize: "batchSize",
  trainBatchSize: "batchSize",
  perDeviceEvalBatchSize: "evalBatchSize",
  lr: "learningRate",
  epochs: "numTrainEpochs",
  numEpochs: "numTrainEpochs",
  samplePacking: "packing",
  maxSeqLength: "maxLength",
  maxSeqLen: "maxLength",
  scheduler: "lrSchedulerType",
  lrScheduler: "lrSchedulerType",
  gradAccumSteps: "gradientAccumulationSteps",
  gradClip: "maxGradNorm",
  evaluationStrategy: "evalStrategy",
  patience: "earlyStoppingPatience",
};

function describe(issue: z.core.$ZodIssue, given: Record<string, unknown>): string[] {
  if (issue.code === "unrecognized_keys") return issue.keys.map(describeUnknown);
  const name = issue.path.join(".");
  return [`${name} ${issue.message}, got ${show(given[name])}`];
}

function describeUnknown(key: string): string {
  if (/^(lora_?)?dropout$/i.test(key))
    return `${key} is not a training option: it is the adapter's, loraDropout of LoraConfig`;
  const camel = key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  const known = Object.keys(trainingOptionsSchema.shape);
  const instead = otherNames[camel] ?? (known.includes(camel) ? camel : nearest(camel, known)[0]);
  return `there is no option ${key}${instead ? `; use ${instead}` : ""}`;
}

const show = (value: unknown): string =>
  typeof value === "string" || (typeof value === "object" && value !== null)
    ? JSON.stringify(value)
    : String(value);

const invalid = (problems: string[]): TrainingError =>
  new TrainingError(
    problems.length === 1
      ? `Training options: ${problems[0]}.`
      : `Training options have ${problems.length} problems:\n${problems.map((problem) => `- ${problem}`).join("\n")}`,
    { code: "invalid-training-options", details: { problems } },
  );

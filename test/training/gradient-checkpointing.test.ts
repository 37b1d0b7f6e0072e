import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, type LoraConfigOptions } from "../../src/adapters/index.ts";
import { type Batch, collate, memoryDataset } from "../../src/data/index.ts";
import { TrainingError } from "../../src/errors.ts";
import { reachable, recomputedBlocks } from "../../src/graph/index.ts";
import type { LanguageModel } from "../../src/models/index.ts";
import { numel, tensor } from "../../src/tensor/index.ts";
import { GradientCheckpointing } from "../../src/training/gradient-checkpointing.ts";
import {
  resolveTrainingOptions,
  type TrainBegin,
  Trainer,
  type TrainerOptions,
  type TrainingOptionsInput,
} from "../../src/training/index.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import { trainingProgram } from "../../src/training/program.ts";
import { build, small } from "../models/florence2-small.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, sharedEngine } from "../support/run-graph.ts";
import { randomExamples } from "./cut-case.ts";
import { bartConfig, llamaConfig, smallModel, withRandomWeights } from "./small-models.ts";
import { freshAdapter, referenceCase } from "./trainer-runs.ts";

/** Relative. Sums in another order round otherwise, and gradients of queries and keys are small differences. */
const GRADIENT = 2e-5;

const engine = sharedEngine({ threads: 1 });

/** Loss and gradients of a batch, with some blocks computed again. */
async function outputsOf(model: LanguageModel, batch: Batch, isRecomputed: (block: number) => boolean) {
  const objective = objectiveOf(model);
  const { outputs } = trainingProgram(model, {
    image: objective.imageSize(batch),
    packed: batch.segments !== undefined,
    modelDropout: true,
    isRecomputed,
  });
  const results = await evaluate(engine(), outputs, {
    ...(await model.parameterFeeds()),
    ...objective.feeds(batch, { lossScale: 0.05 }),
    ...objective.noise(batch, 7),
  });
  return { results, blocks: recomputedBlocks(reachable(Object.values(outputs))) };
}

async function compare(model: LanguageModel, batch: Batch, blocks: readonly number[]): Promise<void> {
  const plain = await outputsOf(model, batch, () => false);
  const all = await outputsOf(model, batch, () => true);
  const some = await outputsOf(model, batch, (block) => block % 2 === 0);
  expect(plain.blocks).toEqual([]);
  expect(all.blocks.sort((a, b) => a - b)).toEqual(blocks);
  expect(some.blocks.sort((a, b) => a - b)).toEqual(blocks.filter((block) => block % 2 === 0));
  for (const { results } of [all, some])
    for (const [name, { data }] of Object.entries(plain.results))
      expect(relativeL2(results[name]!.data as Float32Array, data as Float32Array), name).toBeLessThan(
        GRADIENT,
      );
}

describe("the same loss and gradients", () => {
  const everyLinear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const examples = randomExamples([9, 6, 11], { vocabulary: 60 });
  const aligned = collate(examples, { padTokenId: 0, labels: "aligned" });

  test.each<[string, LoraConfigOptions, number[]]>([
    ["every linear layer, with dropout", { targetModules: everyLinear, loraDropout: 0.3 }, [0, 1, 2]],
    ["q and v", { targetModules: ["q_proj", "v_proj"] }, [0, 1, 2]],
    ["the upper layers", { targetModules: ["v_proj"], layersToTransform: [1, 2] }, [1, 2]],
    ["norms as a whole", { targetModules: ["up_proj"], modulesToSave: ["input_layernorm"] }, [0, 1, 2]],
  ])("Llama: %s", async (_, lora, blocks) => {
    await compare(smallModel(llamaConfig, lora), aligned, blocks);
  });

  test("packed rows", async () => {
    const batch = collate(examples, { padTokenId: 0, labels: "aligned", rows: [[0, 1], [2]] });
    const lora = { targetModules: everyLinear, loraDropout: 0.3 };
    await compare(smallModel(llamaConfig, lora), batch, [0, 1, 2]);
  });

  test("BART, with its own dropout", async () => {
    const model = smallModel(
      { ...bartConfig, dropout: 0.2, attention_dropout: 0.1 },
      { targetModules: ["q_proj", "k_proj", "fc1"], loraDropout: 0.3 },
    );
    const pairs = randomExamples([5, 8, 3], { vocabulary: 60, labels: [4, 2, 6] });
    await compare(model, collate(pairs, { padTokenId: 1, labels: "decoder" }), [0, 1, 2, 3]);
  });

  test("Florence-2: the vision tower's blocks too", async () => {
    const model = withRandomWeights(build(small));
    const targetModules = ["q_proj", "v_proj", "qkv", "fc1", "fc2"];
    getPeftModel(model, new LoraConfig({ r: 2, initLoraWeights: false, loraDropout: 0.2, targetModules }));
    const shape = [3, 32, 32];
    const tokens = model.imageTokens({ height: 32, width: 32 });
    const pairs = randomExamples([4, 3], { vocabulary: 38, labels: [3, 5] }).map((example, i) => ({
      ...example,
      inputIds: [...Array<number>(tokens).fill(39), ...example.inputIds],
      pixelValues: tensor(
        "float32",
        shape,
        Float32Array.from(new Numbers(i + 1).fill(shape, -1, 1)).slice(0, numel(shape)),
      ),
    }));
    // Three of the vision tower, one of the encoder, one of the decoder.
    await compare(model, collate(pairs, { padTokenId: 1, labels: "decoder" }), [0, 1, 2, 3, 4]);
  });
});

describe("in a run", () => {
  const reference = referenceCase("llama-qv");
  const train = async (
    options: TrainingOptionsInput & Partial<Pick<TrainerOptions, "trainDataset">>,
    lora: LoraConfigOptions = {},
  ) => {
    const begun: TrainBegin[] = [];
    const warnings: string[] = [];
    const result = await new Trainer({
      model: await freshAdapter(reference, { loraDropout: 0.1, ...lora }),
      trainDataset: reference.dataset(),
      engine: engine(),
      ...{ batchSize: 2, maxSteps: 6, learningRate: 0.01, seed: 4 },
      ...options,
      callbacks: [
        {
          onTrainBegin: (event) => void begun.push(event),
          onWarning: ({ message }) => void warnings.push(message),
        },
      ],
    }).train();
    const losses = result.steps.map(({ loss }) => loss);
    return { losses, report: begun[0]!.gradientCheckpointing, warnings };
  };

  test("losses are the same, and what was decided is told", async () => {
    const plain = await train({});
    expect(plain.report).toBeUndefined();
    const all = await train({ gradientCheckpointing: true });
    expect(all.report).toMatchObject({ recomputed: 2, blocks: 2, fits: true });
    expect(all.report!.recomputedShare).toBeGreaterThan(0.1);
    expect(all.report!.estimatedBytes).toBeLessThan(all.report!.estimatedBytesWithout);
    expect(all.report!.reason).toContain("2 of 2 blocks are computed again in the backward pass");
    for (const [i, loss] of all.losses.entries()) expect(loss / plain.losses[i]!).toBeCloseTo(1, 6);
  });

  test("with frozen layers kept as well", async () => {
    const lora = { layersToTransform: [1], targetModules: ["v_proj", "down_proj"] };
    const cached = { prefixCache: "memory", maxSteps: 12 } as const;
    const plain = await train({ maxSteps: 12, prefixCache: "off" }, lora);
    const both = await train({ ...cached, gradientCheckpointing: true }, lora);
    expect(both.report).toMatchObject({ recomputed: 1, blocks: 1 });
    for (const [i, loss] of both.losses.entries()) expect(loss / plain.losses[i]!).toBeCloseTo(1, 5);
  });

  test("a limit takes as few blocks as it needs, and more when a batch is larger", async () => {
    const { report } = await train({ gradientCheckpointing: true, maxSteps: 1 });
    const { estimatedBytes: least, estimatedBytesWithout: most } = report!;
    const ample = await train({ memoryLimit: 2 * most });
    expect(ample.report).toMatchObject({ recomputed: 0, recomputedShare: 0, fits: true });
    const tight = await train({ memoryLimit: least - 1 });
    expect(tight.report).toMatchObject({ recomputed: 2, fits: false });
    expect(tight.report!.reason).toMatch(/beyond the limit .*Smaller batches/);

    const ofLength = (length: number) => randomExamples([length, length], { vocabulary: 90 });
    const long = await train({
      gradientCheckpointing: true,
      trainDataset: memoryDataset(ofLength(60)),
      maxSteps: 1,
    });
    const { estimatedBytes, estimatedBytesWithout } = long.report!;
    const growing = await train({
      ...{ memoryLimit: (estimatedBytes + estimatedBytesWithout) / 2, shuffle: false, maxSteps: 2 },
      trainDataset: memoryDataset([...ofLength(4), ...ofLength(60)]),
    });
    expect(growing.report).toMatchObject({ recomputed: 0, fits: true });
    expect(growing.warnings).toEqual([expect.stringMatching(/^a batch is larger.*2 × 60 tokens/)]);
    expect(growing.losses).toHaveLength(2);
  });
});

test("blocks are chosen from the first one up until the estimate fits", () => {
  const model = smallModel(
    { ...llamaConfig, num_hidden_layers: 6 },
    { targetModules: ["q_proj", "down_proj"] },
  );
  const sizes = { batch: 8, sequence: 512, labels: 8 };
  const choose = (memoryLimit: number) => {
    const checkpointing = new GradientCheckpointing({ gradientCheckpointing: "auto", memoryLimit });
    const outputs = checkpointing.choose(
      (isRecomputed) => trainingProgram(model, { isRecomputed }).outputs,
      sizes,
    );
    const blocks = recomputedBlocks(reachable(Object.values(outputs))).sort((a, b) => a - b);
    return { blocks, report: checkpointing.report!, outputs, checkpointing };
  };
  const { report } = choose(1);
  expect(report).toMatchObject({ recomputed: 6, blocks: 6, fits: false });
  const middle = choose((report.estimatedBytes + report.estimatedBytesWithout) / 2);
  expect(middle.report.fits).toBe(true);
  expect(middle.blocks.length).toBeGreaterThan(0);
  expect(middle.blocks.length).toBeLessThan(6);
  expect(middle.blocks).toEqual(middle.blocks.map((_, i) => i));
  // One block fewer would not do.
  const limit = (report.estimatedBytes + report.estimatedBytesWithout) / 2;
  const fewer = trainingProgram(model, { isRecomputed: (block) => block < middle.blocks.length - 1 });
  expect(middle.checkpointing.exceeds(fewer.outputs, sizes)).toBe(true);
  expect(middle.checkpointing.exceeds(middle.outputs, sizes)).toBe(false);
  expect(middle.checkpointing.exceeds(middle.outputs, { ...sizes, batch: 80 })).toBe(true);
  expect(middle.report.estimatedBytes).toBeLessThanOrEqual(limit);
});

test("options that contradict each other", () => {
  const resolve = (options: TrainingOptionsInput) => resolveTrainingOptions(options, { hasEvalData: false });
  expect(resolve({ memoryLimit: 1e9 })).toMatchObject({ gradientCheckpointing: "auto", memoryLimit: 1e9 });
  expect(() => resolve({ memoryLimit: 1e9, gradientCheckpointing: false })).toThrow(TrainingError);
  expect(() => resolve({ gradientCheckpointing: "yes" as "auto" })).toThrow('"auto", true or false');
});

test("a process takes less memory", { timeout: 120_000 }, async () => {
  const program = fileURLToPath(new URL("checkpointing-memory.ts", import.meta.url));
  const peak = async (mode: "none" | "all"): Promise<number> => {
    const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", program, mode]);
    return Number(stdout);
  };
  const [without, withAll] = [await peak("none"), await peak("all")];
  // Of about 1.0 GB, in which the process alone has 0.2.
  expect(withAll).toBeLessThan(0.65 * without);
});

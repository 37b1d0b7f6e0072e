import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { memoryDataset } from "../../src/data/index.ts";
import {
  type TrainBegin,
  Trainer,
  type TrainerOptions,
  type TrainingOptionsInput,
  type TrainResult,
} from "../../src/training/index.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { type Counts, countingEngine } from "./counting-engine.ts";
import { randomExamples } from "./cut-case.ts";
import { freshAdapter, plainRun, referenceCase, temporaryFolder, weightsOf } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const reference = referenceCase("llama-qv");

const lastLayer: LoraConfigOptions = { layersToTransform: [1], layersPattern: "layers" };
const examples = randomExamples([6, 9, 4, 12, 7], { vocabulary: 80 });

const counting = (): Counts => countingEngine(engine);

type Outcome = { result: TrainResult; begin: TrainBegin | undefined; weights: Record<string, number[]> };

async function run(
  options: TrainingOptionsInput & Pick<TrainerOptions, "engine" | "resume" | "signal" | "callbacks">,
  { lora = lastLayer, evalExamples = 0 }: { lora?: LoraConfigOptions; evalExamples?: number } = {},
): Promise<Outcome> {
  const model = await freshAdapter(reference, lora);
  let begin: TrainBegin | undefined;
  const trainer = new Trainer({
    ...plainRun,
    maxSteps: undefined,
    numTrainEpochs: 3,
    shuffle: true,
    model,
    trainDataset: memoryDataset(examples),
    ...(evalExamples > 0 && { evalDataset: memoryDataset(examples.slice(0, evalExamples)) }),
    engine: engine(),
    callbacks: [
      {
        onTrainBegin: (event) => {
          begin = event;
        },
      },
    ],
    ...options,
  });
  const result = await trainer.train();
  return { result, begin, weights: weightsOf(model) };
}

const lossesOf = ({ result }: Outcome): number[] => result.steps.map(({ loss }) => loss);

function expectSame(actual: Outcome, expected: Outcome): void {
  for (const [i, loss] of lossesOf(expected).entries())
    expect(Math.abs(lossesOf(actual)[i]! / loss - 1), `step ${i + 1}`).toBeLessThan(1e-6);
  expect(actual.result.steps).toHaveLength(expected.result.steps.length);
  for (const [name, values] of Object.entries(expected.weights))
    for (const [i, value] of values.entries())
      expect(Math.abs(actual.weights[name]![i]! - value)).toBeLessThan(2e-5);
}

describe("the prefix cache", () => {
  test("in memory and on disk gives the losses of a run without", async () => {
    const without = await run({ prefixCache: "off" });
    expect(without.begin!.prefixCache).toBeUndefined();
    const memory = await run({ prefixCache: "memory" });
    expectSame(memory, without);
    expect(memory.begin!.prefixCache).toMatchObject({ mode: "memory" });
    const disk = await run({ prefixCache: "disk", outputDir: await temporaryFolder() });
    expectSame(disk, without);
    expect(disk.begin!.prefixCache).toMatchObject({ mode: "disk" });
  });

  test("computes each example's frozen part once; its graph is loaded before the first step, and let go after the first epoch", async () => {
    const counted = counting();
    const open: number[] = [];
    await run({
      prefixCache: "memory",
      engine: counted.engine,
      callbacks: [
        {
          onTrainBegin: () => void open.push(counted.open()),
          onStepEnd: () => void open.push(counted.open()),
        },
      ],
    });
    expect(counted.runs("kept")).toBe(3); // batches of the first epoch
    expect(open).toEqual([1, 1, 1, ...Array(7).fill(0)]);
  });

  test("with dropout of the adapter, packing, length groups and several batches a step", async () => {
    for (const options of [
      { packing: true, batchSize: 1 },
      { groupByLength: true },
      { gradientAccumulationSteps: 2 },
    ] as const) {
      const lora = { ...lastLayer, loraDropout: 0.3 };
      const [without, cached] = [
        await run({ ...options, prefixCache: "off" }, { lora }),
        await run({ ...options, prefixCache: "memory" }, { lora }),
      ];
      expectSame(cached, without);
    }
  });

  test("serves evaluation too, which finds what training has kept of the same examples", async () => {
    const counted = counting();
    const without = await run({ prefixCache: "off" }, { evalExamples: 4 });
    const cached = await run({ prefixCache: "memory", engine: counted.engine }, { evalExamples: 4 });
    expectSame(cached, without);
    expect(cached.result.best!.loss / without.result.best!.loss).toBeCloseTo(1, 6);
    expect(counted.runs("kept")).toBe(3);
    expect(counted.loads()).toEqual([1, 3]); // the graph of an evaluation is made once
  });

  test("room for some examples: the others are computed each time", async () => {
    const counted = counting();
    const without = await run({ prefixCache: "off" });
    const { bytesPerExample } = (await run({ prefixCache: "memory" })).begin!.prefixCache!;
    const cached = await run({
      prefixCache: "memory",
      prefixCacheLimit: (2 * bytesPerExample) / 1e9,
      engine: counted.engine,
    });
    expectSame(cached, without);
    expect(counted.runs("kept")).toBeGreaterThan(3);
  });

  test("float16 takes half the room, and is near", async () => {
    const [without, half] = [
      await run({ prefixCache: "off" }),
      await run({ prefixCache: "memory", prefixCacheDtype: "float16" }),
    ];
    const full = await run({ prefixCache: "memory" });
    expect(half.begin!.prefixCache!.bytesPerExample).toBe(full.begin!.prefixCache!.bytesPerExample / 2);
    const difference = Math.max(
      ...lossesOf(half).map((loss, i) => Math.abs(loss / lossesOf(without)[i]! - 1)),
    );
    expect(difference).toBeGreaterThan(0);
    expect(difference).toBeLessThan(1e-3);
  });

  test("an adapter in the first layer leaves nothing to keep, which is said", async () => {
    const { begin } = await run({ prefixCache: "auto" }, { lora: {} });
    expect(begin!.prefixCache).toMatchObject({
      mode: "off",
      reason: expect.stringContaining("first layers"),
    });
  });

  test("an interrupted run goes on with what is on disk; in the end the folder is gone", async () => {
    const outputDir = await temporaryFolder();
    const whole = await run({ prefixCache: "off" });
    const controller = new AbortController();
    const model = await freshAdapter(reference, lastLayer);
    const first = new Trainer({
      ...plainRun,
      ...{ maxSteps: undefined, numTrainEpochs: 3, shuffle: true, prefixCache: "disk", outputDir },
      ...{ model, trainDataset: memoryDataset(examples), engine: engine(), signal: controller.signal },
      callbacks: [{ onStepEnd: ({ step }) => void (step === 4 && controller.abort()) }],
    });
    expect((await first.train()).reason).toBe("aborted");
    expect(existsSync(join(outputDir, "prefix-cache"))).toBe(true);

    const counted = counting();
    const rest = await run({ prefixCache: "disk", outputDir, resume: true, engine: counted.engine });
    expect(rest.result.reason).toBe("finished");
    expect(counted.runs("kept")).toBe(0);
    const tail = lossesOf(whole).slice(-rest.result.steps.length);
    for (const [i, loss] of lossesOf(rest).entries()) expect(loss / tail[i]!).toBeCloseTo(1, 5);
    expect(
      readdirSync(outputDir, { recursive: true }).filter((name) => String(name).includes("prefix-cache")),
    ).toEqual([]);
  });

  test("a folder of one's own serves later runs, and other layers do not read it", async () => {
    const prefixCacheDir = await temporaryFolder();
    const options = { prefixCache: "disk", prefixCacheDir } as const;
    const first = await run(options);
    const again = counting();
    expectSame(await run({ ...options, engine: again.engine }), first);
    expect(again.runs("kept")).toBe(0);
    const other = counting();
    await run({ ...options, engine: other.engine }, { lora: { ...lastLayer, targetModules: ["down_proj"] } });
    expect(other.runs("kept")).toBe(3);
  });

  test.each([
    [{ prefixCache: "off", prefixCacheDtype: "float16" }, 'no effect with prefixCache "off"'],
    [{ prefixCache: "disk" }, "set outputDir or prefixCacheDir"],
    [{ prefixCache: "memory", prefixCacheDir: "x" }, 'no effect with prefixCache "memory"'],
    [{ prefixCache: "memory", paddingSide: "left" }, 'needs paddingSide "right"'],
  ] as const)("%j is refused", async (options, message) => {
    await expect(run(options)).rejects.toThrow(message);
  });
});

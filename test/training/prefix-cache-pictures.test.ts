import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig } from "../../src/adapters/index.ts";
import { type Dataset, type Example, memoryDataset } from "../../src/data/index.ts";
import type { ImageTextToTextLM } from "../../src/models/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { type TrainBegin, Trainer, type TrainerOptions, type TrainResult } from "../../src/training/index.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { countingEngine } from "./counting-engine.ts";
import { plainRun, temporaryFolder } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const reference = florence2Cases().find(({ expected }) => expected.name === "florence2-four-stages")!;

/** q of the decoder: the encoder's states are kept, which pictures and tokens make. */
const decoder = ".*decoder.*q_proj";
/** q of the encoder as well: pictures' features are kept, which pictures alone make. */
const text = ".*language_model.*q_proj";
const epochs = 3;

let base: ImageTextToTextLM;
beforeAll(async () => {
  base = await reference.loadBase();
});

/** Another picture for every number. */
const picture = (number: number, [height, width]: readonly [number, number]): Tensor<"float32"> =>
  tensor(
    "float32",
    [3, height, width],
    Float32Array.from({ length: 3 * height * width }, (_, i) => Math.sin(i * (number + 1))),
  );

/** Rows about pictures: a number and a size of each. */
const rowsAbout = (pictures: readonly (readonly [number, readonly [number, number]])[]): Example[] =>
  pictures.map(([number, size], row) => {
    const [height, width] = size;
    const places = Array<number>(base.imageTokens({ height, width })).fill(base.imageTokenId);
    const word = (i: number): number => 5 + ((7 * row + 3 * i) % 40);
    return {
      inputIds: [...places, ...Array.from({ length: 2 + (row % 3) }, (_, i) => word(i))],
      labels: Array.from({ length: 2 + (row % 2) }, (_, i) => word(i + 5)),
      pixelValues: picture(number, size),
    };
  });

/** A dataset that counts how often it is asked for an example with its picture. */
function reading(examples: readonly Example[]): Dataset & { pictures: () => number } {
  let pictures = 0;
  const inner = memoryDataset(examples);
  return {
    ...{ name: inner.name, length: inner.length },
    get(index) {
      pictures++;
      return inner.get(index);
    },
    async getText(index) {
      const { pixelValues: _, ...example } = await inner.get(index);
      return example;
    },
    pictures: () => pictures,
  };
}

type Outcome = { result: TrainResult; begin: TrainBegin | undefined };

async function run(
  trainDataset: Dataset,
  options: Partial<TrainerOptions>,
  targetModules = decoder,
): Promise<Outcome> {
  let begin: TrainBegin | undefined;
  const config = new LoraConfig({ r: 2, targetModules, initLoraWeights: false });
  const trainer = new Trainer({
    ...plainRun,
    maxSteps: undefined,
    numTrainEpochs: epochs,
    shuffle: true,
    model: getPeftModel(await reference.loadBase(), config, { seed: 3 }),
    trainDataset,
    engine: engine(),
    ...options,
    callbacks: [
      {
        onTrainBegin: (event) => {
          begin = event;
        },
      },
      ...(options.callbacks ?? []),
    ],
  });
  return { result: await trainer.train(), begin };
}

const lossesOf = ({ result }: Outcome): number[] => result.steps.map(({ loss }) => loss);

function expectSame(actual: Outcome, expected: Outcome): void {
  const [losses, wanted] = [lossesOf(actual), lossesOf(expected)];
  expect(losses).toHaveLength(wanted.length);
  for (const [i, loss] of wanted.entries())
    expect(Math.abs(losses[i]! / loss - 1), `step ${i + 1}`).toBeLessThan(1e-5);
}

const sizes = async (): Promise<[number, number][]> => {
  const [, , height, width] = (await reference.batch()).pixelValues.shape as [number, number, number, number];
  return [
    [height, width],
    [height, 2 * width],
    [2 * height, width],
  ];
};

describe("the prefix cache with pictures", () => {
  test.each([decoder, text])("of several sizes in one run, adapters in %s", async (targetModules) => {
    const [a, b, c] = (await sizes()) as [[number, number], [number, number], [number, number]];
    const rows = rowsAbout([
      [0, a],
      [1, b],
      [2, c],
      [3, a],
      [4, b],
    ]);
    const outputDir = await temporaryFolder();
    const without = await run(memoryDataset(rows), { prefixCache: "off" }, targetModules);
    for (const options of [{ prefixCache: "memory" }, { prefixCache: "disk", outputDir }] as const) {
      const counted = countingEngine(engine);
      const data = reading(rows);
      const cached = await run(data, { ...options, engine: counted.engine }, targetModules);
      expectSame(cached, without);
      expect(cached.begin!.prefixCache!.mode).toBe(options.prefixCache);
      expect(counted.pictures()).toBe(rows.length);
      expect(data.pictures()).toBe(rows.length);
    }
    expect(existsSync(join(outputDir, "prefix-cache"))).toBe(false);
  });

  test.each([decoder, text])(
    "rows that share pictures, adapters in %s: the vision tower runs once per picture",
    async (targetModules) => {
      const [size] = (await sizes()) as [[number, number]];
      const rows = rowsAbout([0, 1, 0, 0, 1, 0, 2].map((number) => [number, size]));
      const without = await run(memoryDataset(rows), { prefixCache: "off" }, targetModules);
      const counted = countingEngine(engine);
      const data = reading(rows);
      const cached = await run(data, { prefixCache: "memory", engine: counted.engine }, targetModules);
      expectSame(cached, without);
      expect(counted.pictures()).toBe(3);
      expect(data.pictures()).toBe(rows.length);
    },
  );

  test("room for some examples: pictures of the others are read in every epoch", async () => {
    const [size] = (await sizes()) as [[number, number]];
    const rows = rowsAbout([0, 1, 2, 3, 4].map((number) => [number, size]));
    const without = await run(memoryDataset(rows), { prefixCache: "off" });
    const { bytesPerExample } = (await run(memoryDataset(rows), { prefixCache: "memory" })).begin!
      .prefixCache!;
    const data = reading(rows);
    const cached = await run(data, {
      prefixCache: "memory",
      prefixCacheLimit: (2.5 * bytesPerExample) / 1e9,
    });
    expectSame(cached, without);
    expect(data.pictures()).toBe(epochs * rows.length - (epochs - 1) * 2);
  });

  test("a later run reads what an earlier one has left on disk, and an interrupted one goes on with it", async () => {
    const [size] = (await sizes()) as [[number, number]];
    const rows = rowsAbout([0, 1, 0, 2].map((number) => [number, size]));
    const without = await run(memoryDataset(rows), { prefixCache: "off" });
    const options = { prefixCache: "disk", prefixCacheDir: await temporaryFolder() } as const;
    const outputDir = await temporaryFolder();
    const controller = new AbortController();
    const first = await run(memoryDataset(rows), {
      ...options,
      outputDir,
      signal: controller.signal,
      callbacks: [{ onStepEnd: ({ step }) => void (step === 2 && controller.abort()) }],
    });
    expect(first.result.reason).toBe("aborted");
    const [resumed, other] = [countingEngine(engine), countingEngine(engine)];
    const rest = await run(memoryDataset(rows), {
      ...options,
      outputDir,
      resume: true,
      engine: resumed.engine,
    });
    expect(lossesOf(rest)).toHaveLength(lossesOf(without).length - 2);
    for (const [i, loss] of lossesOf(rest).entries())
      expect(Math.abs(loss / lossesOf(without)[i + 2]! - 1)).toBeLessThan(1e-5);
    expectSame(await run(memoryDataset(rows), { ...options, engine: other.engine }), without);
    expect([resumed.pictures(), other.pictures()]).toEqual([0, 0]);
    // Preprocessed otherwise, they are other pictures.
    const changed = rows.map((row) => ({
      ...row,
      pixelValues: tensor(
        "float32",
        row.pixelValues!.shape,
        row.pixelValues!.data.map((x) => x / 2),
      ),
    }));
    const again = countingEngine(engine);
    const preprocessed = await run(memoryDataset(changed), { ...options, engine: again.engine });
    expect(again.pictures()).toBe(3);
    expectSame(preprocessed, await run(memoryDataset(changed), { prefixCache: "off" }));
  });

  test("two runs at once share a folder", async () => {
    const [size] = (await sizes()) as [[number, number]];
    const rows = rowsAbout([0, 1, 2, 3].map((number) => [number, size]));
    const without = await run(memoryDataset(rows), { prefixCache: "off" });
    const options = { prefixCache: "disk", prefixCacheDir: await temporaryFolder() } as const;
    const both = await Promise.all([run(memoryDataset(rows), options), run(memoryDataset(rows), options)]);
    for (const one of both) expectSame(one, without);
    const counted = countingEngine(engine);
    expectSame(await run(memoryDataset(rows), { ...options, engine: counted.engine }), without);
    expect(counted.pictures()).toBe(0);
  });

  test("a damaged entry is computed again, for which its picture is read", async () => {
    const [size] = (await sizes()) as [[number, number]];
    const rows = rowsAbout([0, 1, 2, 3].map((number) => [number, size]));
    const without = await run(memoryDataset(rows), { prefixCache: "off" });
    const prefixCacheDir = await temporaryFolder();
    const data = reading(rows);
    const damage = (): void => {
      const files = readdirSync(prefixCacheDir, { recursive: true }).map(String);
      const path = join(prefixCacheDir, files.find((name) => name.endsWith(".data"))!);
      const bytes = readFileSync(path);
      bytes[bytes.length - 9]! ^= 1; // in the values of the example written last
      writeFileSync(path, bytes);
    };
    const cached = await run(data, {
      ...{ prefixCache: "disk", prefixCacheDir },
      callbacks: [{ onStepEnd: ({ step }) => void (step === 2 && damage()) }],
    });
    expectSame(cached, without);
    expect(data.pictures()).toBe(rows.length + 1);
  });
});

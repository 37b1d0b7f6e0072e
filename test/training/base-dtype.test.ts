import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { memoryDataset } from "../../src/data/index.ts";
import { type TrainBegin, Trainer, type TrainingOptionsInput } from "../../src/training/index.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { randomExamples } from "./cut-case.ts";
import { freshAdapter, list, plainRun, referenceCase, temporaryFolder } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });
const reference = referenceCase("llama-qv");
const examples = randomExamples([6, 9, 4, 12, 7], { vocabulary: 80 });

// Codes are cached for the user; not for the one who runs tests.
let home: string | undefined;
beforeAll(async () => {
  home = process.env["XDG_CACHE_HOME"];
});
afterAll(() => {
  if (home === undefined) delete process.env["XDG_CACHE_HOME"];
  else process.env["XDG_CACHE_HOME"] = home;
});

async function run(
  options: TrainingOptionsInput & { resume?: string },
): Promise<{ losses: number[]; begin: TrainBegin }> {
  process.env["XDG_CACHE_HOME"] = await temporaryFolder();
  let begin: TrainBegin | undefined;
  const trainer = new Trainer({
    ...plainRun,
    maxSteps: undefined,
    numTrainEpochs: 3,
    model: await freshAdapter(reference, { layersToTransform: [1], layersPattern: "layers" }),
    trainDataset: memoryDataset(examples),
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
  const { steps } = await trainer.train();
  return { losses: steps.map(({ loss }) => loss), begin: begin! };
}

describe.each(["int8", "int4"] as const)("frozen weights in %s", (baseDtype) => {
  test("give losses near those of float32, and are reported", async () => {
    const [full, few] = [await run({ baseDtype: "fp32" }), await run({ baseDtype })];
    expect(full.begin.baseWeights).toBeUndefined();
    // q, k, v, o, gate, up, down of two layers, and the head.
    const { quantized, kept } = few.begin.baseWeights!;
    expect(few.begin.baseWeights).toMatchObject({ dtype: baseDtype });
    expect(quantized).toBeGreaterThan(0);
    expect(quantized + kept.length).toBeLessThanOrEqual(15);
    const differences = few.losses.map((loss, i) => Math.abs(loss / full.losses[i]! - 1));
    expect(Math.max(...differences)).toBeLessThan(baseDtype === "int8" ? 0.02 : 0.1);
    expect(Math.max(...differences)).toBeGreaterThan(0);
  });

  test("with the prefix cache the same as without", async () => {
    const [off, on] = [
      await run({ baseDtype, prefixCache: "off" }),
      await run({ baseDtype, prefixCache: "memory" }),
    ];
    expect(on.begin.prefixCache).toMatchObject({ mode: "memory" });
    for (const [i, loss] of on.losses.entries())
      expect(Math.abs(loss / off.losses[i]! - 1)).toBeLessThan(1e-5);
  });
});

test("a run goes on with the layers as they were decided on, and gives what it would have given", async () => {
  const outputDir = await temporaryFolder();
  const options = { outputDir, baseDtype: "int8", saveStrategy: "steps", saveSteps: 3 } as const;
  const whole = await run(options);
  const resume = `${outputDir}/checkpoint-3`;
  const rest = await run({ ...options, resume });
  expect(rest.losses).toEqual(whole.losses.slice(3));
  expect(rest.begin.baseWeights).toEqual(whole.begin.baseWeights);

  const path = "model.layers.0.mlp.up_proj";
  const file = `${resume}/trainer_state.json`;
  const state = JSON.parse(readFileSync(file, "utf8"));
  state.stateful_callbacks.Graft.attributes.checked_layers = [
    { path, quantized: false, rounded: { forward: false, backward: false }, outliers: [] },
  ];
  writeFileSync(file, JSON.stringify(state));
  const other = await run({ ...options, resume });
  expect(other.begin.baseWeights!.kept).toEqual([path]);
  expect(other.losses).not.toEqual(rest.losses);
});

test("a run is not resumed in another precision", async () => {
  const outputDir = await temporaryFolder();
  await run({ outputDir, baseDtype: "int8", saveStrategy: "steps", saveSteps: 3 });
  expect(list(outputDir)).toContain("checkpoint-3");
  const other = new Trainer({
    ...plainRun,
    maxSteps: undefined,
    numTrainEpochs: 3,
    model: await freshAdapter(reference, { layersToTransform: [1], layersPattern: "layers" }),
    trainDataset: memoryDataset(examples),
    engine: engine(),
    ...{ outputDir, saveStrategy: "steps", saveSteps: 3, resume: `${outputDir}/checkpoint-3` },
  });
  await expect(other.train()).rejects.toThrow(/baseDtype/);
});

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { PeftModel } from "../../src/adapters/index.ts";
import { nodesOf, reachable } from "../../src/graph/index.ts";
import { type CausalLM, loadLanguageModel } from "../../src/models/index.ts";
import { Conv2d, type Embedding, Linear } from "../../src/nn/index.ts";
import { quantizeWeights } from "../../src/quantization/index.ts";
import { TrainingStep } from "../../src/training/index.ts";
import { trainingProgram } from "../../src/training/program.ts";
import { relativeL2 } from "../support/close.ts";
import { type ReferenceCase, referenceCases } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";

const directory = mkdtempSync(join(tmpdir(), "graft-quantization-"));
afterAll(() => rmSync(directory, { recursive: true }));
let made = 0;
const emptyCache = (): string => join(directory, String(made++));

const vectors = (name: string): string => fileURLToPath(new URL(`../vectors/${name}`, import.meta.url));
const caseOf = (name: string): ReferenceCase =>
  referenceCases(vectors("models")).find(({ expected }) => expected.name === name)!;
const engine = sharedEngine({ threads: 1 });

async function stepOf({ baseModel }: PeftModel<CausalLM>, reference: ReferenceCase) {
  const step = new TrainingStep(baseModel, engine());
  const batch = await reference.batch();
  const result = await step.run(batch, { lossScale: 1 / batch.labelTokens, seed: 1 });
  await step.dispose();
  return result;
}

const inMemory = { dtype: "int8", cacheDirectory: null } as const;

describe("a model with frozen weights in 8 bits", () => {
  test.each(["llama-qv", "llama-smollm2-style", "qwen2-tied", "qwen3-head-dim"])(
    "%s: loss and gradients stay close to those of the weights themselves",
    async (name) => {
      const reference = caseOf(name);
      const exact = await stepOf(await reference.loadAdapted(), reference);
      const peft = await reference.loadAdapted();
      await quantizeWeights(peft.baseModel, inMemory);
      const rounded = await stepOf(peft, reference);
      expect(Math.abs(rounded.loss / exact.loss - 1)).toBeLessThan(5e-3);
      expect(rounded.loss).not.toBe(exact.loss);
      // These tiny random models make up to 0.12 of the 0.005 by which the weights alone err.
      for (const [parameter, gradient] of exact.gradients)
        expect(relativeL2(rounded.gradients.get(parameter)!, gradient), parameter).toBeLessThan(0.2);
    },
  );

  test("in 4 bits, too, where rows are whole blocks", async () => {
    const reference = caseOf("llama-qv");
    const exact = await stepOf(await reference.loadAdapted(), reference);
    const peft = await reference.loadAdapted();
    const { quantized } = await quantizeWeights(peft.baseModel, { ...inMemory, dtype: "int4" });
    const paths = quantized.map(({ path }) => path);
    expect(paths).toContain("model.layers.0.mlp.up_proj"); // rows of 32
    expect(paths).not.toContain("model.layers.0.mlp.down_proj"); // rows of 48
    const rounded = await stepOf(peft, reference);
    expect(Math.abs(rounded.loss / exact.loss - 1)).toBeLessThan(0.03);
    expect(rounded.loss).not.toBe(exact.loss);
  });

  test("equals the model exactly where every layer keeps its weight", async () => {
    const reference = caseOf("llama-qv");
    const exact = await stepOf(await reference.loadAdapted(), reference);
    const peft = await reference.loadAdapted();
    const { quantized, kept } = await quantizeWeights(peft.baseModel, { ...inMemory, maxError: 0 });
    expect([quantized.length, kept.length > 0]).toEqual([0, true]);
    expect(await stepOf(peft, reference)).toEqual(exact);
  });

  test("quantises every frozen linear layer, adapters not", async () => {
    const peft = await caseOf("llama-qv").loadAdapted();
    const { quantized, kept, bytes } = await quantizeWeights(peft.baseModel, inMemory);
    const frozen = [...peft.baseModel.namedModules()].filter(
      ([path, module]) => module instanceof Linear && !path.includes("lora_"),
    );
    expect(quantized.map(({ path }) => path)).toEqual(frozen.map(([path]) => path));
    expect(kept).toEqual([]);
    const elements = quantized.reduce(
      (sum, { linear: { weight, outFeatures } }) => sum + weight.size + 4 * outFeatures,
      0,
    );
    expect(bytes).toBe(elements);
    for (const [path, module] of peft.baseModel.namedModules())
      if (path.includes("lora_") && module instanceof Linear) expect(module.quantized).toBeUndefined();
  });

  test("leaves the head alone if told to", async () => {
    const model = await caseOf("llama-qv").loadBase();
    const { quantized } = await quantizeWeights(model, { ...inMemory, head: false });
    expect(quantized.map(({ path }) => path)).not.toContain("lm_head");
    expect(quantized.length).toBeGreaterThan(0);
  });

  test("looks embeddings up in the weight itself where the head shares it", async () => {
    const reference = caseOf("qwen2-tied");
    const peft = await reference.loadAdapted();
    await quantizeWeights(peft.baseModel, inMemory);
    const { outputs } = trainingProgram(peft.baseModel);
    const { value } = (peft.baseModel.getModule("model.embed_tokens") as Embedding).weight;
    expect(reachable(Object.values(outputs))).toContain(value);
    const readers = nodesOf(Object.values(outputs)).filter(({ inputs }) =>
      (inputs as readonly unknown[]).includes(value),
    );
    expect(readers.map(({ op }) => op)).toEqual(["Gather"]);
  });

  test("leaves convolutions alone", async () => {
    const model = await loadLanguageModel(
      fileURLToPath(new URL("../../models/tiny-florence2", import.meta.url)),
    );
    const { quantized } = await quantizeWeights(model, inMemory);
    const paths = new Set(quantized.map(({ path }) => path));
    const convolutions = [...model.namedModules()].filter(([, module]) => module instanceof Conv2d);
    expect(convolutions.length).toBeGreaterThan(0);
    expect(convolutions.filter(([path]) => paths.has(path))).toEqual([]);
  });

  test("is saved with the adapter's files as they were", async () => {
    const reference = caseOf("llama-qv");
    const [plain, rounded] = [await reference.loadAdapted(), await reference.loadAdapted()];
    await quantizeWeights(rounded.baseModel, inMemory);
    expect(rounded.files()).toEqual(plain.files());
  });
});

describe("the cache of codes", () => {
  test("gives the same results as memory, and is found again", async () => {
    const reference = caseOf("llama-qv");
    const cacheDirectory = emptyCache();
    const results = [];
    for (const options of [{ cacheDirectory: null }, { cacheDirectory }, { cacheDirectory }]) {
      const peft = await reference.loadAdapted();
      const { quantized } = await quantizeWeights(peft.baseModel, { dtype: "int8", ...options });
      results.push({
        step: await stepOf(peft, reference),
        errors: quantized.map(({ weightError }) => weightError),
      });
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
    expect(readdirSync(cacheDirectory)).toHaveLength(1);
  });

  test("has a place for each model", async () => {
    const cacheDirectory = emptyCache();
    for (const name of ["llama-qv", "qwen2-tied"])
      await quantizeWeights(await caseOf(name).loadBase(), { dtype: "int8", cacheDirectory });
    expect(readdirSync(cacheDirectory)).toHaveLength(2);
  });

  test("keeps what is used beyond its size, and removes what is not", async () => {
    const cacheDirectory = emptyCache();
    const old = join(cacheDirectory, "0".repeat(32));
    mkdirSync(old, { recursive: true });
    writeFileSync(join(old, "codes-0.safetensors"), "x".repeat(100));
    const model = await caseOf("llama-qv").loadBase();
    await quantizeWeights(model, { dtype: "int8", cacheDirectory, maxCacheBytes: 1 });
    expect(existsSync(old)).toBe(false);
    expect(readdirSync(cacheDirectory)).toHaveLength(1);
  });

  test("is written again where it was not finished", async () => {
    const cacheDirectory = emptyCache();
    const quantize = async () =>
      quantizeWeights(await caseOf("llama-qv").loadBase(), { dtype: "int8", cacheDirectory });
    await quantize();
    const place = join(cacheDirectory, readdirSync(cacheDirectory)[0]!);
    rmSync(join(place, "index.json"));
    writeFileSync(join(place, "codes-0.safetensors"), "half a file");
    const { quantized } = await quantize();
    expect(quantized.length).toBeGreaterThan(0);
    const files = readdirSync(place).filter((name) => !name.startsWith("used-by-"));
    expect(files.sort()).toEqual(["codes-0.safetensors", "index.json"]);
  });
});

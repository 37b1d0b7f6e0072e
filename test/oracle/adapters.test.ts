import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { getPeftModel, LoraConfig, type PeftModel } from "../../src/adapters/index.ts";
import { readTensor } from "../../src/checkpoint/index.ts";
import { TextGenerator } from "../../src/generation/index.ts";
import type { CausalLM } from "../../src/models/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import { type Tensor, tensor, toFloat32 } from "../../src/tensor/index.ts";
import { AdamW, TrainingStep } from "../../src/training/index.ts";
import { maxAbsDifference } from "../support/close.ts";
import { logitsOf, realRows } from "../support/parity.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { checkAdapter, loadAndGenerate } from "./python.ts";

/** Tolerance of the design: an adapter saved here and loaded there. */
const LOGITS = 1e-4; // max abs
/** Training must have moved the logits by far more than that. */
const MOVED = 1e-2;

/** A recorded checkpoint and the adapter to train on it. */
type Setting = { title: string; base: string; config: LoraConfigOptions; generates?: boolean };

const settings: readonly Setting[] = [
  {
    title: "a list of names, some layers",
    base: "llama-smollm2-style",
    config: {
      r: 4,
      loraAlpha: 8,
      targetModules: ["q_proj", "v_proj"],
      layersToTransform: [1, 2],
      layersPattern: "layers",
    },
    generates: true,
  },
  {
    title: "a regular expression, dropout",
    base: "llama-dynamic-rope",
    config: { r: 2, targetModules: ".*\\.1\\.mlp\\.(?:up|down)_proj", loraDropout: 0.2 },
  },
  {
    title: "every linear layer",
    base: "qwen3-head-dim",
    config: { r: 3, loraAlpha: 6, targetModules: "all-linear" },
    generates: true,
  },
  {
    title: "rank-stabilised, Gaussian start, F16 weights",
    base: "mistral-sliding-window",
    config: { r: 4, useRslora: true, initLoraWeights: "gaussian", targetModules: ["k_proj", "gate_proj"] },
  },
  {
    title: "biases of the adapted layers",
    base: "qwen2-tied",
    config: { r: 2, targetModules: ["q_proj", "down_proj"], bias: "lora_only" },
  },
  {
    title: "every bias",
    base: "llama-biases-linear-rope",
    config: { r: 2, targetModules: ["v_proj"], bias: "all" },
  },
  {
    title: "ranks and alphas by pattern, a start that changes the model, shards",
    base: "qwen2-layer-types",
    config: {
      r: 2,
      loraAlpha: 4,
      targetModules: ["q_proj", "o_proj", "up_proj"],
      excludeModules: ["layers.2.self_attn.o_proj"],
      rankPattern: { "layers.0.self_attn.q_proj": 5, up_proj: 1 },
      alphaPattern: { "layers\\.[12]\\.self_attn\\.q_proj": 9 },
      initLoraWeights: false,
    },
  },
  {
    title: "the embedding, tied",
    base: "qwen2-tied-embedding-lora",
    config: { r: 2, targetModules: ["embed_tokens", "v_proj"] },
  },
  {
    title: "the embedding and the head, not tied",
    base: "llama-embedding-lora",
    config: { r: 2, targetModules: ["embed_tokens", "lm_head", "o_proj"] },
  },
  {
    title: "whole modules saved along: head and norm",
    base: "llama-yarn",
    config: { r: 2, targetModules: ["q_proj"], modulesToSave: ["lm_head", "model.norm"] },
    generates: true,
  },
];

const engine = sharedEngine({ threads: 1 });

describe.each(settings.map((setting) => [setting.title, setting] as const))(
  "PEFT loads what Graft saves: %s",
  (_, setting) => {
    const reference = new ReferenceCase(
      fileURLToPath(new URL(`../vectors/models/${setting.base}`, import.meta.url)),
    );
    let directory: string;
    let peft: PeftModel<CausalLM>;

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "graft-adapter-"));
      const model = await reference.loadBase();
      peft = getPeftModel(model, new LoraConfig({ ...setting.config, taskType: "CAUSAL_LM" }), { seed: 5 });
      await train(peft, reference, engine());
      await peft.savePretrained(directory);
    });
    afterAll(() => rm(directory, { recursive: true, force: true }));

    const question = () => ({ model: reference.modelPath, adapter: directory, directory });

    test("targets, tensors and logits are the same", async () => {
      const checked = await checkAdapter({ ...question(), batch: reference.expected.batch });
      expect(
        peft.selection.targets.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling })),
      ).toEqual(checked.targets);

      const saved = peft.stateDict();
      expect([...checked.adapter.keys()].sort()).toEqual([...saved.keys()].sort());
      for (const [key, own] of saved)
        expect(digest(checked.adapter.get(key)!), key).toEqual(
          digest("data" in own ? own : await readTensor(own)),
        );

      const batch = reference.batch();
      const logits = realRows(await logitsOf(peft.baseModel, engine(), batch), batch);
      expect(maxAbsDifference(logits, realRows(checked.logits, batch))).toBeLessThan(LOGITS);
      const base = realRows(await logitsOf(await reference.loadBase(), engine(), batch), batch);
      expect(maxAbsDifference(logits, base)).toBeGreaterThan(MOVED);
    });

    if (!setting.generates) return;
    test("greedy generation is the same", async () => {
      const { prompt } = reference.expected.generation;
      const { newTokens, margin } = loadAndGenerate({ ...question(), batch: { input_ids: [prompt] } });
      const generator = await TextGenerator.create(peft.baseModel, { engine: engine() });
      const { tokens } = await generator.generate(prompt, {
        maxNewTokens: newTokens[0]!.length,
        doSample: false,
        eosTokenIds: [],
      });
      await generator.dispose();
      expect(margin, "the leads of the chosen tokens must exceed rounding").toBeGreaterThan(2 * LOGITS);
      expect(tokens).toEqual(newTokens[0]);
    });
  },
);

/** Four steps of AdamW, large ones, so that the adapter matters. */
async function train(peft: PeftModel<CausalLM>, reference: ReferenceCase, engine: Engine): Promise<void> {
  await peft.materialize();
  const parameters = new Map([...peft.trainableParameters()].map(([key, { data }]) => [key, data!]));
  const optimizer = new AdamW(parameters, { learningRate: 2e-2 });
  const step = new TrainingStep(peft.baseModel, engine);
  const batch = await reference.lines([0, 1, 2]);
  for (let seed = 0; seed < 4; seed++) {
    const { gradients } = await step.run(batch, { lossScale: 1 / batch.labelTokens, seed });
    optimizer.step(
      new Map(
        [...gradients].map(([key, data]) => [key, tensor("float32", parameters.get(key)!.shape, data)]),
      ),
    );
  }
  await step.dispose();
}

/** Tells tensors apart that differ in a bit as float32, in which both sides compute. */
function digest(stored: Tensor): string {
  const { shape, data } = toFloat32(stored);
  return `[${shape}] ${createHash("sha256").update(data).digest("hex")}`;
}

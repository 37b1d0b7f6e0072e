import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { freshAdapter, getPeftModel, LoraConfig, moduleTreeOf, toPython } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensor, type TensorEntry } from "../../src/checkpoint/index.ts";
import { type Tensor, toFloat32 } from "../../src/tensor/index.ts";
import { findSkeleton } from "../conformance/vector-files.ts";
import { referenceCase, rejection } from "./support.ts";

/** What is trained is in memory as float32, whatever the checkpoint has. */
const floatsOf = async (tensor: Tensor | TensorEntry): Promise<Tensor> =>
  toFloat32("data" in tensor ? tensor : await readTensor(tensor));
const skeleton = (name: string) => findSkeleton(name, join(import.meta.dirname, "x"));

describe("a fresh adapter", () => {
  test.each([
    { r: 2, targetModules: ["q_proj", "v_proj"] },
    { r: 2, targetModules: ["embed_tokens", "gate_proj"], initLoraWeights: "gaussian" as const },
    { r: 3, targetModules: ["k_proj"], initLoraWeights: false, bias: "all" as const },
    { r: 2, targetModules: ["up_proj"], modulesToSave: ["lm_head"], rankPattern: { "0.mlp.up_proj": 5 } },
    { r: 2, targetModules: ["lm_head", "embed_tokens"], base: "qwen2-tied" },
    { r: 2, targetModules: ["lm_head"], modulesToSave: ["embed_tokens"], base: "qwen2-tied" },
    {
      r: 2,
      targetModules: ["q_proj"],
      modulesToSave: ["o_proj"],
      bias: "all" as const,
      base: "llama-biases-linear-rope",
    },
  ])(
    "has the tensors and the configuration of getPeftModel: %j",
    async ({ base = "llama-qv", ...options }) => {
      const reference = referenceCase(base);
      const config = new LoraConfig(options);
      const model = await reference.loadBase();
      const tree = moduleTreeOf(model);
      const openCheckpoint = async () => readCheckpoint(await openStore(reference.modelPath));
      const fresh = await freshAdapter(tree, config, { seed: 7, openCheckpoint });
      const peft = getPeftModel(model, config, { seed: 7 });
      await peft.materialize();
      const expected = peft.stateDict();
      expect([...fresh.tensors.keys()]).toEqual([...expected.keys()]);
      for (const [key, tensor] of fresh.tensors) {
        const other = expected.get(key)!;
        expect(await floatsOf(tensor), key).toEqual(await floatsOf(other));
      }
      expect(fresh.config.stringify()).toBe(peft.savedConfig().stringify());
    },
  );

  test("needs no weights unless some are copied, and says which", async () => {
    const tree = skeleton("bert-base-seqcls");
    const plain = await freshAdapter(tree, new LoraConfig({ r: 2, targetModules: ["query"] }));
    expect(plain.tensors.size).toBe(24);
    const error = await rejection(
      freshAdapter(tree, new LoraConfig({ r: 2, targetModules: ["query"], modulesToSave: ["classifier"] })),
    );
    expect(error.message).toContain("classifier.weight");
    expect(error.code).toBe("needs-weights");
  });

  test("of stacked experts has A (r·E, in) and B (out, r·E)", async () => {
    const tree = skeleton("mixtral-8x7b");
    const config = new LoraConfig({
      r: 2,
      targetModules: [],
      targetParameters: ["experts.down_proj"],
      initLoraWeights: "gaussian",
    });
    const { tensors } = await freshAdapter(
      { ...tree, modules: tree.modules.filter(({ name }) => !/layers\.(?!0\.|0$)\d/.test(name)) },
      config,
    );
    expect([...tensors].map(([key, { shape }]) => [key.replace(/.*experts\./, ""), shape])).toEqual([
      ["lora_A.weight", [16, 14336]],
      ["lora_B.weight", [4096, 16]],
    ]);
    // N(0, 1/r), with r the rank and not the first axis: the deviation of 229,376 draws is 0.5 within 1 %
    const a = [...tensors.values()][0]!;
    const { data } = a as { data: Float32Array };
    const deviation = Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length);
    expect(deviation).toBeGreaterThan(0.495);
    expect(deviation).toBeLessThan(0.505);
  });

  test.each([{ initLoraWeights: "pissa" as const }, { useDora: true }])(
    "is refused for %j",
    async (options) => {
      const config = new LoraConfig({ targetModules: ["query"], ...options });
      const error = await rejection(freshAdapter(skeleton("bert-base-seqcls"), config));
      expect(error.code).toBe("unsupported-init");
    },
  );
});

describe("a Python snippet", () => {
  test("has only what differs from PEFT's defaults, patterns raw and tables in order", () => {
    const config = new LoraConfig({
      targetModules: String.raw`.*\.(q_proj|v_proj)`,
      rankPattern: new Map([
        ["10", 4],
        ["2", 8],
      ]),
      baseModelNameOrPath: "x",
    });
    expect(toPython(config, { className: "LlamaForCausalLM", location: "org/name" })).toBe(
      readFileSync(new URL("./snippet.txt", import.meta.url), "utf8"),
    );
  });

  test("leaves the model to the reader where its class is unknown", () => {
    expect(toPython(new LoraConfig())).toContain("config = LoraConfig()\n# model: the model to adapt\n");
  });
});

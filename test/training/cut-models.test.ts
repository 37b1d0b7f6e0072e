import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, type LoraConfigOptions } from "../../src/adapters/index.ts";
import { type Cut, nodesOf } from "../../src/graph/index.ts";
import type { LanguageModel } from "../../src/models/index.ts";
import { Florence2Case, imageSizeOf } from "../models/florence2-case.ts";
import { Seq2SeqCase } from "../models/seq2seq-case.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { CutCase, cutOf, inputsOf, randomExamples, widths } from "./cut-case.ts";

const engine = sharedEngine({ threads: 1 });
const vectors = (name: string): string => join(fileURLToPath(new URL("../vectors", import.meta.url)), name);

/** Adapters that do something from the start. */
function adapt<M extends LanguageModel>(model: M, options: LoraConfigOptions): M {
  getPeftModel(model, new LoraConfig({ r: 2, initLoraWeights: false, ...options }));
  return model;
}

describe("a decoder", () => {
  const examples = randomExamples([5, 9, 7, 3], { vocabulary: 90 });
  const groups = [[3, 1], [0], [2]];
  const everyLinear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
  const lastLayer = { layersToTransform: [1] };

  test.each<[string, string, LoraConfigOptions]>([
    ["all of the last layer", "llama-qv", { targetModules: everyLinear, ...lastLayer }],
    ["q and v of the last layer", "llama-qv", { targetModules: ["q_proj", "v_proj"], ...lastLayer }],
    ["grouped keys, an MLP's end", "llama-smollm2-style", { targetModules: ["down_proj"], ...lastLayer }],
    ["biases and ties, q", "qwen2-tied", { targetModules: ["q_proj"], ...lastLayer }],
    ["norms of heads, k", "qwen3-head-dim", { targetModules: ["k_proj"], ...lastLayer }],
    ["windows, o", "mistral-sliding-window", { targetModules: ["o_proj"], ...lastLayer }],
    ["the head", "llama-qv", { targetModules: ["lm_head"] }],
    ["with dropout", "llama-qv", { targetModules: everyLinear, loraDropout: 0.3, ...lastLayer }],
  ])(
    "%s (%s): losses and gradients from what is kept are the same, whatever the padding",
    async (_, name, lora) => {
      const reference = new ReferenceCase(vectors(`models/${name}`));
      const model = adapt(await reference.loadBase(), lora);
      const subject = new CutCase(engine(), model);
      for (const flopsPerByte of [0, 1, 20]) {
        const cut = cutOf(subject.outputs, { flopsPerByte })!;
        expect(cut.kept.length).toBeGreaterThan(0);
        expect(cut.kept.every(({ rows }) => rows.kind === "token" && rows.sequence === "sequence")).toBe(
          true,
        );
        for (const [here, there] of [
          ["right", "right"],
          ["right", "left"],
          ["left", "right"],
        ] as const)
          await subject.compare(cut, examples, {
            groups,
            whole: { side: here, padToMultipleOf: 4 },
            parts: { side: there, padToMultipleOf: 5 },
          });
        const same = { side: "right", padToMultipleOf: 4 } as const;
        await subject.compare(cut, examples, {
          groups: [[0, 1, 2, 3]],
          whole: same,
          parts: same,
          slack: 1e-6,
        });
      }
    },
  );

  test("a loss that computes the end of the last layer at labelled rows alone is cut as well", async () => {
    const model = adapt(await new ReferenceCase(vectors("models/llama-qv")).loadBase(), {
      targetModules: everyLinear,
      loraDropout: 0.3,
      ...lastLayer,
    });
    const subject = new CutCase(engine(), model, { sunk: true });
    const cut = cutOf(subject.outputs, { flopsPerByte: 20 })!;
    const parts = { side: "right" } as const;
    await subject.compare(cut, examples, { groups, whole: { side: "right", padToMultipleOf: 4 }, parts });
  });

  test("what was computed in padded rows serves packed ones", async () => {
    const reference = new ReferenceCase(vectors("models/llama-qv"));
    const model = adapt(await reference.loadBase(), { targetModules: ["q_proj", "v_proj"], ...lastLayer });
    const { prefix, kept } = cutOf(new CutCase(engine(), model).outputs, { flopsPerByte: 30 })!;
    const packed = new CutCase(engine(), model, { packed: true });
    const cut = cutOf(packed.outputs, { flopsPerByte: 30 })!;
    expect(cut.kept.map(({ name, rows }) => [name, rows])).toEqual(
      kept.map(({ name, rows }) => [name, rows]),
    );
    await packed.compare(cut, examples, {
      groups,
      whole: { side: "right", rows: [[2, 0, 3], [1]] },
      parts: { side: "right" },
      prefix,
    });
  });

  test("what is kept is the hidden state below the first adapter, if projections are not worth their bytes", async () => {
    const model = adapt(await new ReferenceCase(vectors("models/llama-qv")).loadBase(), {
      targetModules: ["q_proj", "v_proj"],
      ...lastLayer,
    });
    const cut = cutOf(new CutCase(engine(), model).outputs, { flopsPerByte: 30 })!;
    expect(widths(cut)).toEqual([32]);
    expect(inputsOf(cut.outputs)).not.toContain("input_ids");
    expect(inputsOf(cut.outputs)).toContain("attention_mask");
    expect(cut.bytesPerExample({ batch: 3, sequence: 7 })).toBe(7 * 32 * 4);
    expect(cut.savedFlops).toBeGreaterThan(cut.totalFlops / 5);
  });

  test("dropout's random bits are no part of what is kept", async () => {
    const model = adapt(await new ReferenceCase(vectors("models/llama-qv")).loadBase(), {
      targetModules: ["q_proj"],
      loraDropout: 0.5,
      ...lastLayer,
    });
    const { outputs } = new CutCase(engine(), model);
    const cut = cutOf(outputs)!;
    expect(inputsOf(outputs)).toContain("dropout_noise");
    expect(inputsOf(cut.outputs)).toContain("dropout_noise");
    expect(inputsOf(cut.prefix)).not.toContain("dropout_noise");
  });

  test("nothing is kept with adapters in the first layer, or with frequencies that depend on the batch", async () => {
    const first = adapt(await new ReferenceCase(vectors("models/llama-qv")).loadBase(), {
      targetModules: "all-linear",
    });
    expect(cutOf(new CutCase(engine(), first).outputs, { minSavedShare: 0.1 })).toBeUndefined();
    const dynamic = adapt(await new ReferenceCase(vectors("models/llama-dynamic-rope")).loadBase(), {
      targetModules: ["q_proj"],
      ...lastLayer,
    });
    const cut = cutOf(new CutCase(engine(), dynamic).outputs, { minSavedShare: 0 });
    expect(cut && inputsOf(cut.prefix)).not.toContain("rope_frequencies");
    expect(cutOf(new CutCase(engine(), dynamic).outputs, { flopsPerByte: 100 })).toBeUndefined();
  });
});

describe("an encoder–decoder", () => {
  const examples = randomExamples([6, 11, 4, 8], { vocabulary: 80, labels: [4, 2, 7, 5] });
  const batching = {
    groups: [[2, 1, 0], [3]],
    whole: { side: "right" as const, padToMultipleOf: 3 },
    parts: { side: "right" as const },
  };
  const bart = (): Seq2SeqCase => new Seq2SeqCase(vectors("seq2seq/bart-tied-gelu"));
  const sequences = ({ kept }: Cut): string[] => [
    ...new Set(kept.map(({ rows }) => (rows.kind === "token" ? rows.sequence : rows.batch))),
  ];

  test.each<[string, LoraConfigOptions, string[]]>([
    ["the decoder", { targetModules: ".*decoder.*(q_proj|fc1)" }, ["source"]],
    ["the last decoder layer", { targetModules: ".*decoder\\.layers\\.1\\..*fc2" }, ["target"]],
    [
      "attention to the encoder",
      { targetModules: ".*decoder\\.layers\\.1\\.encoder_attn\\.q_proj" },
      ["source", "target"],
    ],
    ["the last encoder layer", { targetModules: ".*encoder\\.layers\\.1\\.fc1" }, ["source"]],
    [
      "the encoder's end, with dropout",
      { targetModules: ".*encoder\\.layers\\.1.*v_proj", loraDropout: 0.2 },
      ["source"],
    ],
  ])("adapters in %s", async (_, lora, expected) => {
    const subject = new CutCase(engine(), adapt(await bart().loadBase(), lora));
    for (const flopsPerByte of [1, 20]) {
      const cut = cutOf(subject.outputs, { flopsPerByte })!;
      expect(sequences(cut)).toEqual(expect.arrayContaining(expected));
      await subject.compare(cut, examples, batching);
    }
  });
});

describe("pictures and text", () => {
  const batching = {
    groups: [[2, 0], [1]],
    whole: { side: "right" as const, padToMultipleOf: 3 },
    parts: { side: "right" as const },
  };

  async function florence(lora: LoraConfigOptions) {
    const reference = new Florence2Case(vectors("florence2/florence2-four-stages"));
    const model = adapt(await reference.loadBase(), lora);
    const { pixelValues } = await reference.batch();
    const [, ...picture] = pixelValues.shape;
    const size = picture.reduce((a, b) => a * b);
    const image = imageSizeOf(await reference.batch());
    const tokens = Array<number>(model.imageTokens(image)).fill(model.imageTokenId);
    const texts = randomExamples([3, 6, 4], { vocabulary: 60, labels: [4, 2, 6] });
    const examples = texts.map(({ inputIds, labels }, i) => ({
      inputIds: [...tokens, ...inputIds],
      labels,
      pixelValues: {
        dtype: "float32" as const,
        shape: picture,
        data: Float32Array.from({ length: size }, (_, j) => Math.sin(j * (i + 1))),
      },
    }));
    return { subject: new CutCase(engine(), model, { image }), examples };
  }

  test.each<[string, LoraConfigOptions]>([
    ["the top of the language model", { targetModules: ".*decoder.*(q_proj|v_proj)" }],
    ["the encoder", { targetModules: ".*language_model.*encoder.*fc1" }],
    ["the projector", { targetModules: ".*image_projection" }],
  ])("adapters in %s: the vision tower is computed once", async (_, lora) => {
    const { subject, examples } = await florence(lora);
    const cut = cutOf(subject.outputs, { flopsPerByte: 2 })!;
    expect(inputsOf(cut.outputs)).not.toContain("pixel_values");
    expect(nodesOf(Object.values(cut.outputs)).some(({ op }) => op === "Conv")).toBe(false);
    await subject.compare(cut, examples, batching);
  });

  test("adapters in the third stage: the first two are computed once, for each picture", async () => {
    const { subject, examples } = await florence({ targetModules: ".*blocks\\.2\\..*qkv" });
    const cut = cutOf(subject.outputs, { flopsPerByte: 5 })!;
    expect(cut.kept.map(({ rows }) => [rows.kind, rows.batch])).toContainEqual(["example", "images"]);
    expect(inputsOf(cut.outputs)).not.toContain("pixel_values");
    await subject.compare(cut, examples, batching);
  });
});

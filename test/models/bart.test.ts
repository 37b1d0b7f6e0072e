import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, type LoraConfigOptions, moduleTreeOf } from "../../src/adapters/index.ts";
import { UnsupportedModelError } from "../../src/errors.ts";
import { gradients, nodesOf } from "../../src/graph/index.ts";
import { buildSeq2SeqLM, type Seq2SeqLM, seq2seqLoss } from "../../src/models/index.ts";
import { parseSkeleton } from "../../src/selection/index.ts";
import { zeros } from "../../src/tensor/index.ts";

const base = {
  model_type: "bart",
  vocab_size: 50265,
  d_model: 768,
  encoder_layers: 6,
  encoder_attention_heads: 12,
  encoder_ffn_dim: 3072,
  decoder_layers: 6,
  decoder_attention_heads: 12,
  decoder_ffn_dim: 3072,
};

const small = {
  ...base,
  vocab_size: 40,
  d_model: 16,
  encoder_layers: 2,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 24,
  decoder_layers: 2,
  decoder_attention_heads: 4,
  decoder_ffn_dim: 24,
  max_position_embeddings: 20,
};

function build(config: Record<string, unknown>): Seq2SeqLM {
  const { model } = buildSeq2SeqLM(config, "config.json");
  const origin = { name: "bart", config, generationConfig: undefined, checkpoint: undefined, warnings: [] };
  return Object.assign(model, { origin }) as Seq2SeqLM;
}

describe("BART's module tree", () => {
  const skeleton = parseSkeleton(
    JSON.parse(
      gunzipSync(readFileSync(new URL("../vectors/skeletons/bart-base.json.gz", import.meta.url))).toString(),
    ),
  );
  const model = build(base);

  test("has the reference's modules: paths, classes, kinds, sizes, parameters, in its order", () => {
    expect(moduleTreeOf(model).modules).toEqual(skeleton.modules);
  });

  test("has the reference's ties, embeddings and parameter count", () => {
    expect(model.tiedWeights()).toEqual(skeleton.tiedWeights);
    expect(model.inputEmbeddingPath).toBe(skeleton.inputEmbeddings);
    expect(model.outputEmbeddingPath).toBe(skeleton.outputEmbeddings);
    expect(model.parameterCount()).toBe(skeleton.numParameters);
    expect([...model.namedBuffers()].map(([path, { shape }]) => [path, shape])).toEqual([
      ["final_logits_bias", [1, 50265]],
    ]);
  });

  test("shares no embedding where the configuration ties none", () => {
    expect(build({ ...base, tie_word_embeddings: false }).tiedWeights()).toEqual([]);
  });
});

describe("what a config.json may not ask for", () => {
  const failure = (config: unknown): UnsupportedModelError => {
    try {
      buildSeq2SeqLM(config, "m/config.json");
    } catch (error) {
      expect(error).toBeInstanceOf(UnsupportedModelError);
      return error as UnsupportedModelError;
    }
    throw new Error("the configuration was accepted");
  };

  test.each<[string, Record<string, unknown>, RegExp]>([
    [
      "another model type",
      { model_type: "brat" },
      /model_type "brat" is not implemented\. Did you mean "bart"\?/,
    ],
    ["a causal model", { model_type: "llama" }, /Implemented: bart/],
    [
      "heads that do not divide",
      { decoder_attention_heads: 5 },
      /d_model 16 must be a multiple of the number of heads, 5/,
    ],
    ["skipped layers", { encoder_layerdrop: 0.1 }, /encoder_layerdrop 0\.1 is not implemented \(only 0 is\)/],
    [
      "an unknown activation",
      { activation_function: "gelo" },
      /activation_function "gelo" is not implemented; closest: gelu/,
    ],
    ["a rate of 1", { dropout: 1 }, /dropout/],
    ["no padding token", { pad_token_id: null }, /pad_token_id/],
    ["a decoder alone", { is_decoder: true }, /is_decoder true is not implemented/],
  ])("%s", (_, changes, message) => {
    expect(failure({ ...small, ...changes }).message).toMatch(message);
  });

  test("fields of older configurations are known, others are named in a warning", () => {
    const old = {
      classif_dropout: 0.1,
      normalize_before: false,
      num_hidden_layers: 2,
      gradient_checkpointing: false,
    };
    expect(buildSeq2SeqLM({ ...small, ...old }, "c").warnings).toEqual([]);
    expect(buildSeq2SeqLM({ ...small, mystery: 1 }, "c").warnings).toEqual([
      expect.stringContaining("mystery"),
    ]);
  });

  test("BartConfig's other names are read where its own are missing", () => {
    const { d_model: _, encoder_layers: __, ...rest } = small;
    const model = build({ ...rest, hidden_size: 16, num_hidden_layers: 3 });
    expect(model.getModule("model.encoder.layers.2.fc1")).toBeDefined();
    expect(model.decoderCacheLayout).toEqual({ layers: 2, heads: 4, headDim: 4 });
  });
});

/** Nodes of the loss, and of the loss with the gradients of an adapter. */
function nodeCounts(
  changes: Record<string, unknown>,
  lora: LoraConfigOptions,
): { forward: number; all: number } {
  const model = build({ ...small, dropout: 0, ...changes });
  // Nothing is run: zeros stand for the weights.
  for (const [path, parameter] of model.namedParameters()) {
    parameter.name = path;
    parameter.data = zeros("float32", parameter.shape);
  }
  const peft = getPeftModel(model, new LoraConfig({ r: 2, ...lora }));
  const loss = seq2seqLoss(model);
  const trained = [...peft.trainableParameters().values()].map((parameter) => parameter.value);
  return { forward: nodesOf([loss]).length, all: nodesOf([loss, ...gradients(loss, trained)]).length };
}

describe("the training graph has no backward operators where no adapter is at or below", () => {
  test.each<[string, LoraConfigOptions, string]>([
    [
      "an encoder layer, adapters in the decoder",
      { targetModules: "model\\.decoder\\..*(q_proj|v_proj|fc1)" },
      "encoder_layers",
    ],
    [
      "an encoder layer, adapters on what the decoder reads of it",
      { targetModules: ".*encoder_attn\\.(k|v)_proj" },
      "encoder_layers",
    ],
    ["an encoder layer, adapters on the head", { targetModules: "lm_head" }, "encoder_layers"],
    ["a decoder layer, adapters on the head", { targetModules: "lm_head" }, "decoder_layers"],
  ])("%s", (_, lora, layers) => {
    const [two, three] = [nodeCounts({}, lora), nodeCounts({ [layers]: 3 }, lora)];
    expect(three.forward).toBeGreaterThan(two.forward);
    expect(three.all - two.all).toBe(three.forward - two.forward);
  });

  test("below the lowest adapter of the encoder", () => {
    const lora = (layer: number): LoraConfigOptions => ({
      targetModules: `model\\.encoder\\.layers\\.${layer}\\.fc1`,
    });
    const lowest = nodeCounts({ encoder_layers: 4 }, lora(0));
    const highest = nodeCounts({ encoder_layers: 4 }, lora(3));
    const perLayer = nodeCounts({ encoder_layers: 5 }, lora(0)).all - lowest.all;
    expect(lowest.forward).toBe(highest.forward);
    const forwardLayer = nodeCounts({ encoder_layers: 5 }, lora(0)).forward - lowest.forward;
    expect(lowest.all - highest.all).toBe(3 * (perLayer - forwardLayer));
  });
});

import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { UnsupportedModelError } from "../../src/errors.ts";
import { buildCausalLM } from "../../src/models/index.ts";
import { attentionScaling, DynamicFrequencies, inverseFrequencies, readRope } from "../../src/models/rope.ts";
import { relativeL2 } from "../support/close.ts";
import { referenceCases } from "../support/reference-case.ts";

const llama = {
  model_type: "llama",
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};
const qwen2 = { ...llama, model_type: "qwen2" };

const failure = (config: unknown): UnsupportedModelError => {
  try {
    buildCausalLM(config, "m/config.json");
  } catch (error) {
    expect(error).toBeInstanceOf(UnsupportedModelError);
    return error as UnsupportedModelError;
  }
  throw new Error("the configuration was accepted");
};

describe("what a config.json may not ask for", () => {
  const yarn = { rope_type: "yarn", factor: 4 };
  test.each<[string, unknown, RegExp]>([
    [
      "another model type",
      { ...llama, model_type: "lama" },
      /m\/config\.json: model_type "lama" is not implemented\. Did you mean "llama"\?/,
    ],
    [
      "no model type",
      { vocab_size: 3 },
      /there is no model_type\. Implemented: llama, mistral, qwen2, qwen3/,
    ],
    ["a prototype's name", { model_type: "constructor" }, /model_type "constructor" is not implemented/],
    ["no object", [1], /expected a JSON object/],
    ["a negative size", { ...llama, hidden_size: -1 }, /hidden_size/],
    ["a size that is text", { ...llama, vocab_size: "64" }, /vocab_size/],
    ["heads that do not divide", { ...llama, num_key_value_heads: 3 }, /num_key_value_heads 3 .* do not fit/],
    ["an odd head size", { ...llama, head_dim: 7 }, /head_dim 7 do not fit/],
    [
      "an unknown activation",
      { ...llama, hidden_act: "sillu" },
      /hidden_act "sillu" is not implemented; closest: silu/,
    ],
    [
      "quantised weights",
      { ...llama, quantization_config: { bits: 4 } },
      /quantization_config \{"bits":4\} is not implemented/,
    ],
    [
      "dropout in attention",
      { ...llama, attention_dropout: 0.1 },
      /attention_dropout 0\.1 is not implemented \(only 0 is\)/,
    ],
    [
      "interleaved rotary pairs",
      { ...llama, rope_interleaved: true },
      /rope_interleaved true is not implemented/,
    ],
    [
      "partly rotated heads",
      { ...llama, partial_rotary_factor: 0.5 },
      /partial_rotary_factor 0\.5 is not implemented/,
    ],
    [
      "a RoPE scaling that is not implemented",
      { ...llama, rope_scaling: { type: "longrope" } },
      /RoPE scaling "longrope" is not implemented\. Implemented: default, linear, dynamic, llama3, yarn/,
    ],
    [
      "a RoPE scaling without its factor",
      { ...llama, rope_scaling: { type: "linear" } },
      /"linear" needs factor/,
    ],
    [
      "an unknown RoPE field",
      { ...llama, rope_parameters: { ...yarn, ramp: 3 } },
      /fields that Graft does not implement: ramp/,
    ],
    [
      "a RoPE base that is no number",
      { ...llama, rope_theta: -5 },
      /rope_theta must be a positive number, got -5/,
    ],
    [
      "layer types of another length",
      { ...qwen2, layer_types: ["full_attention"] },
      /layer_types has 1 entries for 2 layers/,
    ],
    [
      "a layer type that is not implemented",
      { ...qwen2, layer_types: ["full_attention", "linear_attention"] },
      /layer_types/,
    ],
    [
      "sliding layers without a window",
      { ...qwen2, layer_types: ["full_attention", "sliding_attention"] },
      /layer 1 is a sliding_attention layer, but there is no sliding_window/,
    ],
  ])("%s", (_, config, message) => {
    expect(failure(config).message).toMatch(message);
  });

  test("all problems are reported at once", () => {
    const { message } = failure({ ...llama, hidden_size: 0, hidden_act: "nope", attention_dropout: 0.5 });
    expect(message).toMatch(/attention_dropout 0\.5.*hidden_size.*hidden_act "nope"/s);
  });
});

test("fields that the type does not have are named in a warning; known harmless ones are not", () => {
  const harmless = {
    architectures: ["LlamaForCausalLM"],
    torch_dtype: "bfloat16",
    use_cache: true,
    is_llama_config: true,
    top_k: 50,
  };
  expect(buildCausalLM({ ...llama, ...harmless }, "c").warnings).toEqual([]);
  expect(buildCausalLM({ ...llama, mystery: 1, sliding_window: 4 }, "c").warnings).toEqual([
    expect.stringContaining(
      "fields that llama does not have are ignored, as transformers ignores them: mystery, sliding_window",
    ),
  ]);
});

describe("RoPE frequencies equal transformers'", () => {
  const cases = referenceCases(fileURLToPath(new URL("../vectors/models", import.meta.url)));
  test.each(cases.map((reference) => [reference.expected.name, reference] as const))(
    "%s",
    async (_, reference) => {
      const { origin } = await reference.loadBase();
      const config = origin.config as Record<string, number>;
      const headDim = config["head_dim"] ?? config["hidden_size"]! / config["num_attention_heads"]!;
      const rope = readRope(config, { headDim, maxPositionEmbeddings: config["max_position_embeddings"]! });
      const recorded = reference.expected.rope;
      expect(relativeL2(inverseFrequencies(rope), recorded.inverseFrequencies)).toBeLessThan(1e-6);
      expect(attentionScaling(rope)).toBeCloseTo(recorded.attentionScaling, 6);
    },
  );
});

test("dynamic frequencies grow with the longest sequence and fall back below the original length", () => {
  const rope = readRope(
    { rope_scaling: { type: "dynamic", factor: 2 } },
    { headDim: 8, maxPositionEmbeddings: 16 },
  );
  const frequencies = new DynamicFrequencies(rope);
  const original = inverseFrequencies(rope);
  expect(frequencies.at(16)).toEqual(original);
  const grown = frequencies.at(40);
  expect(grown[3]).toBeLessThan(original[3]!);
  expect(frequencies.at(20)).toEqual(grown); // as transformers: not recomputed for a shorter one
  expect(frequencies.at(15)).toEqual(original);
});

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { moduleTreeOf } from "../../src/adapters/index.ts";
import { buildCausalLM } from "../../src/models/index.ts";
import { parseSkeleton } from "../../src/selection/index.ts";

// Skeletons are the module trees that transformers builds (test/vectors/skeletons). These are their configurations.
const configs = {
  "llama-3.2-1b": {
    model_type: "llama",
    vocab_size: 128256,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    max_position_embeddings: 131072,
    tie_word_embeddings: true,
  },
  "mistral-7b": {
    model_type: "mistral",
    vocab_size: 32000,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    max_position_embeddings: 32768,
    sliding_window: 4096,
  },
  "qwen2.5-0.5b": {
    model_type: "qwen2",
    vocab_size: 151936,
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    max_position_embeddings: 32768,
    tie_word_embeddings: true,
  },
};

describe.each(Object.entries(configs))("%s", (name, config) => {
  const skeleton = parseSkeleton(
    JSON.parse(
      gunzipSync(readFileSync(new URL(`../vectors/skeletons/${name}.json.gz`, import.meta.url))).toString(),
    ),
  );
  const { model } = buildCausalLM(config, "config.json");
  const tree = moduleTreeOf(
    Object.assign(model, {
      origin: { name, config, generationConfig: undefined, checkpoint: undefined, warnings: [] },
    }),
  );

  test("has the reference's modules: paths, classes, kinds, sizes, parameters, in its order", () => {
    expect(tree.modules).toEqual(skeleton.modules);
  });

  test("has the reference's embeddings, ties and parameter count", () => {
    expect(tree.inputEmbeddings).toBe(skeleton.inputEmbeddings);
    expect(tree.outputEmbeddings).toBe(skeleton.outputEmbeddings);
    expect(tree.tiedWeights).toEqual(skeleton.tiedWeights);
    expect(tree.tiedWithEmbedding).toEqual(skeleton.tiedWithEmbedding);
    expect(tree.numParameters).toBe(skeleton.numParameters);
  });
});

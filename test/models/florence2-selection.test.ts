import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { moduleTreeOf } from "../../src/adapters/index.ts";
import { buildSeq2SeqLM } from "../../src/models/index.ts";
import type { PreTrainedModel } from "../../src/nn/index.ts";
import type { ModuleTree } from "../../src/selection/index.ts";
import { runSelectionVector, type SelectionVectorFile } from "../conformance/selection-vectors.ts";
import { findSkeleton, readVectors } from "../conformance/vector-files.ts";
import { build } from "./florence2-small.ts";

const layers = {
  encoder_layers: 6,
  decoder_layers: 6,
  encoder_attention_heads: 12,
  decoder_attention_heads: 12,
  encoder_ffn_dim: 3072,
  decoder_ffn_dim: 3072,
};

const florence2 = {
  model_type: "florence2",
  text_config: { vocab_size: 51289, d_model: 768, ...layers },
  vision_config: { projection_dim: 768 },
  image_token_id: 51288,
};

function buildBart(): PreTrainedModel {
  const config = { model_type: "bart", d_model: 768, ...layers };
  const { model } = buildSeq2SeqLM(config, "config.json");
  const origin = { name: "bart", config, generationConfig: undefined, checkpoint: undefined, warnings: [] };
  return Object.assign(model, { origin }) as unknown as PreTrainedModel;
}

/** The model's own tree; where it came from it cannot know. */
const treeOf = (model: PreTrainedModel, like: ModuleTree): ModuleTree => ({
  ...moduleTreeOf(model),
  name: like.name,
});

// What PEFT selects was recorded on transformers' modules (test/vectors/selection). It must hold on Graft's own.
describe.each([
  ["florence2-base", () => build(florence2)],
  ["bart-base", buildBart],
] as const)("%s: on the model's own tree it selects what PEFT selects", (name, make) => {
  const path = join(import.meta.dirname, `../vectors/selection/${name}.json.gz`);
  const { skeleton, vectors } = readVectors(path) as SelectionVectorFile;
  const tree = treeOf(make(), findSkeleton(skeleton, path));
  const categories = new Set(vectors.map(({ cat }) => cat));

  test("there are some", () => expect(vectors.length).toBeGreaterThan(100));

  test.each([...categories])("%s", (category) => {
    for (const vector of vectors.filter(({ cat }) => cat === category))
      expect({ id: vector.id, config: vector.config, mismatch: runSelectionVector(tree, vector) }).toEqual({
        id: vector.id,
        config: vector.config,
        mismatch: undefined,
      });
  });
});

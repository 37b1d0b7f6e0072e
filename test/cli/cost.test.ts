import { join } from "node:path";
import { expect, test } from "vitest";
import { costJson, describeCost } from "../../src/cli/cost.ts";
import { estimateCost, type SelectionConfig, selectTargets } from "../../src/selection/index.ts";
import { findSkeleton } from "../conformance/vector-files.ts";

function costOf(name: string, config: SelectionConfig) {
  const tree = findSkeleton(name, join(import.meta.dirname, "x"));
  return estimateCost(tree, selectTargets(tree, { r: 8, ...config }));
}

test("a selection beside all-linear", () => {
  const cost = costOf("llama-3.2-1b", {
    targetModules: ["q_proj", "v_proj"],
    layersToTransform: [12, 13, 14, 15],
    layersPattern: "layers",
  });
  expect(`\n${describeCost(cost)}\n`).toMatchInlineSnapshot(`
    "
    cost                            selection  all-linear  share
    trainable parameters              212,992   5,636,096  3.8 %
    adapter file                     854.1 kB     22.6 MB  3.8 %
    gradients and optimizer state      2.6 MB     67.6 MB  3.8 %
    forward per token              2.54 GFLOP  2.55 GFLOP  100 %
    backward per token             1.03 GFLOP  2.62 GFLOP   39 %
    activations, 1 × 512             523.1 MB      1.4 GB   38 %
    frozen weights: 4.9 GB as stored
    gradients go down to model.layers.12: saves 60 % of the backward pass; 59 % of the forward pass lies below
    "
  `);
});

test("towers each by themselves, unknown ones too", () => {
  const cost = costOf("florence2-base", {
    targetModules: ".*language_model\\.encoder\\.layers\\.[45]\\..*q_proj",
  });
  expect(`\n${describeCost(cost)}\n`).toMatchInlineSnapshot(`
    "
    cost                           selection  all-linear   share
    trainable parameters              24,576   3,176,448  0.77 %
    adapter file                     98.9 kB     12.8 MB  0.78 %
    gradients and optimizer state   294.9 kB     38.1 MB  0.77 %
    forward per token              305 MFLOP   309 MFLOP    99 %
    backward per token             250 MFLOP   336 MFLOP    74 %
    activations, 1 × 512            410.2 MB    572.2 MB    72 %
    frozen weights: 925.7 MB as stored
    gradients go down to model.language_model.encoder.layers.4: saves 25 % of the backward pass; 21 % of the forward pass lies below
      model.vision_tower: not counted, its positions are not known
      model.language_model.encoder: 512 positions, each 94.4 MFLOP forward, 29.6 MFLOP backward; gradients down to layers.4
      model.language_model.decoder: 512 positions, each 211 MFLOP forward, 220 MFLOP backward; gradients go through to the tower before
    "
  `);
});

test("one image, where there is no text", () => {
  expect(describeCost(costOf("vit-base", { targetModules: "all-linear" }))).toContain("forward per example");
});

test("JSON has every figure, those of all-linear included", () => {
  const cost = costOf("gpt2", { targetModules: ["c_attn"] });
  const json = JSON.parse(JSON.stringify(costJson(cost))) as Record<string, unknown>;
  for (const field of [
    ...["trainableParameters", "adapterParameters", "adapterBytes", "gradientBytes", "optimizerBytes"],
    ...["trainableFraction", "frozenWeightBytes", "forwardFlops", "backwardFlops", "activationBytes"],
    ...["saved", "towers", "lowestLayer", "batch", "assumptions", "allLinear"],
  ])
    expect(json).toHaveProperty(field);
  expect(json["allLinear"]).toMatchObject({ share: { trainableParameters: expect.any(Number) } });
});

import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../../src/adapters/config-options.ts";
import { getPeftModel, LoraConfig, moduleTreeOf } from "../../../src/adapters/index.ts";
import type { ImageTextToTextLM, LanguageModel, Seq2SeqLM } from "../../../src/models/index.ts";
import { type Cost, type CostOptions, estimateCost } from "../../../src/selection/index.ts";
import { florence2Cases } from "../../models/florence2-case.ts";
import { build } from "../../models/florence2-small.ts";
import { seq2seqCases } from "../../models/seq2seq-case.ts";
import { type BatchShape, countGraph, expectLater, type GraphCounts } from "./count-graph.ts";
import { withoutWeights } from "./without-weights.ts";

const ofText: [name: string, options: LoraConfigOptions][] = [
  ["every linear layer", { targetModules: "all-linear" }],
  ["q and v", { targetModules: ["q_proj", "v_proj"] }],
  [
    "the encoder's last layer and the whole decoder",
    { targetModules: ".*(encoder\\.layers\\.0|decoder\\.layers\\.\\d+)\\..*(proj|fc\\d)" },
  ],
  ["the decoder", { targetModules: ".*decoder.*(proj|fc1|fc2)" }],
  ["keys of the attention to the encoder", { targetModules: ".*encoder_attn\\.k_proj" }],
  ["the encoder's feed-forward layers", { targetModules: ".*encoder\\.layers.*fc2" }],
  ["an encoder's values, with dropout", { targetModules: ".*\\.encoder\\..*v_proj", loraDropout: 0.1 }],
  ["the decoder's embedding", { targetModules: ".*decoder\\.embed_tokens" }],
  ["q, with all biases", { targetModules: ["q_proj"], bias: "all" }],
  [
    "fc1 of the decoder, a norm and the head whole",
    { targetModules: ".*decoder.*fc1", modulesToSave: ["decoder.layernorm_embedding", "lm_head"] },
  ],
];

const ofPictures: [name: string, options: LoraConfigOptions][] = [
  ...ofText,
  ["the vision tower", { targetModules: ["qkv", "proj"] }],
  ["its last feed-forward layers", { targetModules: ".*channel_block\\.ffn\\.fc2" }],
  ["its feed-forward layers, with dropout", { targetModules: ".*vision.*fc1", loraDropout: 0.1 }],
  ["the projector", { targetModules: ".*image_projection" }],
  ["rows and columns", { targetModules: ["row_embeddings", "column_embeddings"] }],
  ["the prompt's embedding", { targetModules: ["shared"] }],
  [
    "decoder, and the projector whole",
    {
      targetModules: ".*decoder.*q_proj",
      modulesToSave: ["image_projection", "image_proj_norm", "row_embeddings"],
    },
  ],
  ["convolutions", { targetModules: ".*convs\\.\\d\\.conv" }],
  ["one convolution, with dropout", { targetModules: ".*convs\\.1\\.conv", loraDropout: 0.1 }],
  [
    "decoder, and convolutions whole",
    { targetModules: ".*decoder.*v_proj", modulesToSave: ["convs.1.conv", "conv2"] },
  ],
  [
    "decoder, and a norm of a block whole",
    { targetModules: ".*decoder.*v_proj", modulesToSave: ["channel_block.norm2"] },
  ],
];

function compare(
  model: LanguageModel,
  lora: LoraConfigOptions,
  shape: BatchShape,
  options: CostOptions,
): { cost: Cost; counted: GraphCounts } {
  const tree = moduleTreeOf(model);
  const peft = getPeftModel(model, new LoraConfig({ r: 4, ...lora }));
  const cost = estimateCost(tree, peft.selection, options);
  const counted = countGraph(peft.baseModel, shape);
  return { cost, counted };
}

function expectEqual(
  { cost, counted }: { cost: Cost; counted: GraphCounts },
  units: number,
  tolerance: number,
): void {
  for (const pass of ["forward", "backward"] as const)
    for (const part of ["frozen", "trained", "attention", "head"] as const)
      expect(cost[`${pass}Flops`][part] * units, `${pass} ${part}`).toBeCloseTo(counted[pass][part], 0);
  expectLater(cost, counted, units);
  expect(cost.trainableParameters).toBe(counted.trainedElements);
  expect(cost.activationBytes / counted.keptBytes, JSON.stringify(counted.kept, null, 1)).toBeGreaterThan(
    1 - tolerance,
  );
  expect(cost.activationBytes / counted.keptBytes, JSON.stringify(counted.kept, null, 1)).toBeLessThan(
    1 + tolerance,
  );
}

describe.each(seq2seqCases().map((one) => [one.expected.name, one] as const))("%s", (_, reference) => {
  test.each(ofText)("%s", async (_name, lora) => {
    const model: Seq2SeqLM = await reference.loadBase();
    const shape = { batch: 2, sequence: 40, target: 24, labels: 24, flopsPerByte: 30 };
    const options = {
      batchSize: 2,
      sequenceLength: 40,
      targetLength: 24,
      labelFraction: 0.5,
      flopsPerByte: 30,
    };
    expectEqual(compare(model, lora, shape, options), 2 * 40, 0.02);
  });
});

describe.each(florence2Cases().map((one) => [one.expected.name, one] as const))("%s", (_, reference) => {
  test.each(ofPictures)("%s", async (_name, lora) => {
    const model: ImageTextToTextLM = await reference.loadBase();
    const image = { height: 45, width: 37 };
    const sequence = model.imageTokens(image) + 7;
    const shape = { batch: 2, sequence, target: 12, labels: 12, image, flopsPerByte: 30 };
    const options: CostOptions = {
      ...{
        batchSize: 2,
        sequenceLength: sequence,
        targetLength: 12,
        labelFraction: 0.5,
        ...{ imageSize: [45, 37], flopsPerByte: 30 },
      },
    };
    expectEqual(compare(model, lora, shape, options), 2, 0.02);
  });
});

/** Florence-2-base as the hub has it, without weights: nothing is run. Its config.json has dropouts of all three kinds. */
function base(): ImageTextToTextLM {
  const heads = { encoder_attention_heads: 12, decoder_attention_heads: 12 };
  const ffn = { encoder_ffn_dim: 3072, decoder_ffn_dim: 3072, encoder_layers: 6, decoder_layers: 6 };
  const dropouts = { dropout: 0.1, attention_dropout: 0.1, activation_dropout: 0.1 };
  const model = build({
    model_type: "florence2",
    text_config: { vocab_size: 51289, d_model: 768, ...heads, ...ffn, ...dropouts },
    vision_config: { projection_dim: 768 },
    image_token_id: 51288,
  });
  return withoutWeights(model);
}

describe("Florence-2-base's shape", () => {
  const image = { height: 768, width: 768 };
  const shape = { batch: 2, sequence: 577 + 16, target: 64, labels: 128, image };
  test.each(ofPictures)("%s", (_, lora) => {
    // whatever is not said is as Florence-2-base has it
    const { cost, counted } = compare(base(), lora, shape, { batchSize: 2 });
    expectEqual({ cost, counted }, 2, 0.001);
  });

  test.each(ofPictures.slice(0, 8))("%s, with the model's dropout", (_, lora) => {
    const modelDropout = true;
    const { cost, counted } = compare(
      base(),
      lora,
      { ...shape, modelDropout },
      { batchSize: 2, modelDropout },
    );
    expectEqual({ cost, counted }, 2, 0.001);
  });
});

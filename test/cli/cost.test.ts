import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { costJson, describeCost } from "../../src/cli/cost.ts";
import { estimateCost, type SelectionConfig, selectTargets } from "../../src/selection/index.ts";
import { findSkeleton } from "../conformance/vector-files.ts";
import { graft, scratch, vectors } from "./support.ts";

const directory = scratch();

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
    both, in later epochs          2.05 GFLOP  5.17 GFLOP   40 %
    activations, 1 × 512             391.8 MB      1.2 GB   31 %
    frozen weights: 4.9 GB as stored; memory to train, about: 6.1 GB
    gradients go down to model.layers.12: saves 60 % of the backward pass; later epochs take 0.57× of the first, with 10.5 MB kept of an example
    "
  `);
});

test("towers each by themselves, and what the frozen ones save", () => {
  const cost = costOf("florence2-base", {
    targetModules: ".*language_model\\.encoder\\.layers\\.[45]\\..*q_proj",
  });
  expect(`\n${describeCost(cost)}\n`).toMatchInlineSnapshot(`
    "
    cost                            selection  all-linear   share
    trainable parameters               24,576   3,176,448  0.77 %
    adapter file                      98.9 kB     12.8 MB  0.78 %
    gradients and optimizer state    294.9 kB     38.1 MB  0.77 %
    forward per example             458 GFLOP   469 GFLOP    98 %
    backward per example           38.8 GFLOP   494 GFLOP   7.9 %
    both, in later epochs          78.1 GFLOP   962 GFLOP   8.1 %
    activations, 1 example           123.9 MB      2.2 GB   5.7 %
    frozen weights: 925.7 MB as stored; memory to train, about: 1.6 GB
    an example: a picture of 768 × 768 pixels, 593 tokens read, 64 written
    gradients go down to model.language_model.encoder.layers.4: saves 92 % of the backward pass; later epochs take 0.16× of the first, with 2.0 MB kept of an example

    tower                         positions  trainable     forward    backward  activations  gradients
    model.vision_tower                  576          0   380 GFLOP      0 FLOP          0 B  none
    model.multi_modal_projector         577          0   908 MFLOP      0 FLOP          0 B  none
    model.language_model.encoder        593     24,576  56.9 GFLOP  18.0 GFLOP      66.6 MB  down to layers.4
    model.language_model.decoder         64          0  20.6 GFLOP  20.9 GFLOP      57.3 MB  go through

    model.vision_tower is frozen: each example saves 406 GFLOP (82 %) of all-linear's backward pass and 1.9 GB of activations
    model.multi_modal_projector is frozen: each example saves 941 MFLOP (0.19 %) of all-linear's backward pass and 4.2 MB of activations
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
    ...["saved", "towers", "lowestLayer", "batch", "memory", "assumptions", "allLinear"],
  ])
    expect(json).toHaveProperty(field);
  expect(json["allLinear"]).toMatchObject({ share: { trainableParameters: expect.any(Number) } });
  const decoder = JSON.stringify(costJson(costOf("florence2-base", { targetModules: ".*decoder.*q_proj" })));
  expect(JSON.parse(decoder)).toMatchObject({
    per: "example",
    batch: { imageSize: [768, 768], sequenceLength: 593, targetLength: 64 },
    saved: {
      towers: [
        { path: "model.vision_tower" },
        { path: "model.multi_modal_projector" },
        { path: "model.language_model.encoder" },
      ],
    },
  });
});

describe("flags of the batch", () => {
  const skeleton = join(vectors, "skeletons/florence2-base.json.gz");
  type Priced = {
    cost: { batch: Record<string, unknown>; problems: string[]; towers: { positions: number }[] };
  };
  const priced = async (...args: string[]): Promise<Priced["cost"]> => {
    const { code, stderr, json } = await graft(["select", ...args, "--target-modules", "q_proj", "--json"]);
    expect(code, stderr).toBe(0);
    return json<Priced>().cost;
  };

  test("size of pictures, lengths, number of examples", async () => {
    const { batch, towers } = await priced(
      ...[skeleton, "--image-size", "480x640", "--batch-size", "3"],
      ...["--sequence-length", "330", "--target-length", "20"],
    );
    expect(batch).toEqual({
      ...{ batchSize: 3, sequenceLength: 330, targetLength: 20, labelFraction: 1, imageSize: [480, 640] },
    });
    expect(towers.map(({ positions }) => positions)).toEqual([300, 301, 330, 20]);
  });

  test("the processor's size, where the model has one beside it", async () => {
    const model = join(directory, "model");
    await cp(join(vectors, "florence2/florence2-four-stages/model"), model, { recursive: true });
    expect((await priced(model)).batch["imageSize"]).toEqual([768, 768]);
    const processor = {
      image_processor_type: "CLIPImageProcessor",
      do_center_crop: false,
      size: { height: 64, width: 96 },
    };
    await writeFile(join(model, "preprocessor_config.json"), JSON.stringify(processor));
    expect((await priced(model)).batch["imageSize"]).toEqual([64, 96]);
    expect((await priced(model, "--image-size", "32")).batch["imageSize"]).toEqual([32, 32]);
  });

  test("what cannot be", async () => {
    const args = ["select", skeleton, "--target-modules", "q_proj"];
    const { code, stderr } = await graft([...args, "--image-size", "0", "--target-length", "1.5"]);
    expect(code).toBe(2);
    expect(stderr).toContain(
      '--image-size must be a number of pixels, or HEIGHTxWIDTH, such as 768 or 480x640, got "0"',
    );
    expect(stderr).toContain('--target-length must be a whole number of at least 1, got "1.5"');
    const { stdout } = await graft([...args, "--image-size", "2000"]);
    expect(stdout).toContain(
      "beyond the model: A picture of 2000 × 2000 pixels has a feature map of 63 × 63 places",
    );
  });
});

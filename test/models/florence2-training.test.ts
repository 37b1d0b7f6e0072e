import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, type LoraConfigOptions } from "../../src/adapters/index.ts";
import { DataError } from "../../src/errors.ts";
import { gradients, type Node, nodesOf, type OpName, reachable, type Value } from "../../src/graph/index.ts";
import {
  type Florence2ForConditionalGeneration,
  type ImageTextToTextLM,
  imageInputs,
  imageRows,
  imageTextFeeds,
  imageTextLoss,
  imageTextNoise,
  seq2seqFeeds,
  seq2seqLoss,
} from "../../src/models/index.ts";
import type { ModuleBuffer } from "../../src/nn/index.ts";
import { type Tensor, tensor, zeros } from "../../src/tensor/index.ts";
import { evaluate, Numbers, sharedEngine } from "../support/run-graph.ts";
import { florence2Cases, imageSizeOf } from "./florence2-case.ts";
import { build, withText, withVision } from "./florence2-small.ts";
import { int64 } from "./seq2seq-case.ts";

const engine = sharedEngine({ threads: 1 });
const image = { height: 33, width: 20 }; // feature maps of 9 × 5 and 5 × 3

/** A model with random weights. */
function random(config: Record<string, unknown>): ImageTextToTextLM {
  const model = build(config);
  let seed = 0;
  for (const [path, parameter] of model.namedParameters()) {
    const { shape } = parameter;
    parameter.name = path;
    const values = new Numbers(seed++).fill(shape, -0.3, 0.3);
    parameter.data = tensor("float32", shape, Float32Array.from(values));
  }
  return model;
}

/** The loss of a model with an adapter, and the nodes that its gradients add to the forward pass. */
function trainingGraph(
  config: Record<string, unknown>,
  lora: LoraConfigOptions,
): { loss: Value; model: ImageTextToTextLM; forward: number; backward: Node[] } {
  const model = build(config);
  // Nothing is run: zeros stand for the weights.
  for (const [path, parameter] of model.namedParameters()) {
    parameter.name = path;
    parameter.data = zeros("float32", parameter.shape);
  }
  const peft = getPeftModel(model, new LoraConfig({ r: 2, ...lora }));
  const loss = imageTextLoss(model, { image });
  const trained = [...peft.trainableParameters().values()].map((parameter) => parameter.value);
  const forward = new Set(nodesOf([loss]));
  const all = nodesOf([loss, ...gradients(loss, trained)]);
  return { loss, model, forward: forward.size, backward: all.filter((node) => !forward.has(node)) };
}

describe("the training graph has no backward operators where no adapter is at or below", () => {
  const depths = (...blocks: number[]): Record<string, unknown> => withVision({ depths: blocks });
  test.each<[string, LoraConfigOptions, Record<string, unknown>, Record<string, unknown>]>([
    [
      "the vision tower, adapters on the projector",
      { targetModules: ".*image_projection" },
      depths(1, 1),
      depths(2, 3),
    ],
    [
      "the vision tower, adapters in BART",
      { targetModules: ["q_proj", "fc1"], excludeModules: ".*vision.*" },
      depths(1, 1),
      depths(2, 3),
    ],
    [
      "the first stage, adapters in the second",
      { targetModules: ".*blocks\\.1\\..*\\.qkv" },
      depths(1, 1),
      depths(3, 1),
    ],
    [
      "the encoder, adapters in the decoder",
      { targetModules: ".*decoder.*fc1" },
      withText({}),
      withText({ encoder_layers: 3 }),
    ],
  ])("%s", (_, lora, smaller, larger) => {
    const [few, many] = [trainingGraph(smaller, lora), trainingGraph(larger, lora)];
    expect(many.forward).toBeGreaterThan(few.forward);
    expect(many.backward.length).toBe(few.backward.length);
  });

  test.each<[string, LoraConfigOptions, boolean]>([
    ["the projector", { targetModules: ".*image_projection" }, false],
    ["the encoder", { targetModules: ".*encoder.*v_proj" }, false],
    ["the tower's last layer", { targetModules: ".*blocks\\.1\\.1\\.channel_block\\.ffn\\.fc2" }, true],
  ])("with adapters on %s, gradients read what the tower computes inside: %s", (_, lora, reads) => {
    const { loss, backward } = trainingGraph(withVision({ depths: [1, 2] }), lora);
    const pixels = reachable([loss]).find(
      ({ source }) => source.kind === "input" && source.name === "pixel_values",
    )!;
    const ofPixels = new Set([pixels]);
    for (const value of reachable([loss]))
      if (value.source.kind === "node" && inputsOf(value.source.node).some((x) => ofPixels.has(x)))
        ofPixels.add(value);
    // All that comes from the picture up to the tower's last residual sum, 12 wide.
    const output = [...ofPixels]
      .filter(({ shape: [, , width], source }) => {
        if (width !== 12 || source.kind !== "node" || source.node.op !== "Add") return false;
        return inputsOf(source.node).every((x) => ofPixels.has(x));
      })
      .at(-1)!;
    const inside = new Set([...ofPixels].filter(({ id }) => id < output.id));
    expect(inside.size).toBeGreaterThan(100);
    expect(backward.some((node) => inputsOf(node).some((x) => inside.has(x)))).toBe(reads);
  });

  const inputsOf = ({ inputs }: Node): Value[] =>
    (inputs as readonly (Value | undefined)[]).filter((x): x is Value => x !== undefined);
});

describe("dropout and dropped paths", () => {
  const countOf = (value: Value, name: OpName): number =>
    nodesOf([value]).filter(({ op }) => op === name).length;
  const drops = (model: ImageTextToTextLM): number =>
    countOf(imageTextLoss(model, { image, dropout: true }), "Where") -
    countOf(imageTextLoss(model, { image }), "Where");
  /** Without dropout in BART. */
  const dropping = (vision: object): Record<string, unknown> => ({
    ...withVision(vision),
    text_config: withText({ dropout: 0 })["text_config"],
  });

  test("every residual branch but the first block's spatial ones is dropped", () => {
    const quiet = (rate: number): ImageTextToTextLM =>
      random(dropping({ depths: [1, 2], drop_path_rate: rate }));
    expect(drops(quiet(0.2))).toBe(2 * (2 * 3 - 1));
    expect(drops(quiet(0))).toBe(0);
  });

  test("adapters' own dropout finds noise in every tower", () => {
    const model = random(dropping({ drop_path_rate: 0 }));
    const peft = getPeftModel(
      model,
      new LoraConfig({
        r: 24,
        loraDropout: 0.1,
        targetModules: ["qkv", "proj", "fc1", "fc2", "q_proj", "k_proj", "image_projection", "conv", "conv1"],
      }),
    );
    expect(drops(model)).toBe(peft.selection.targets.length);
  });

  test("a step's loss depends on its seed alone, and varies around the one without", async () => {
    const model = random(dropping({ drop_path_rate: 0.5 }));
    const { losses, without } = await lossesOf(model, [1, 2, 3, 1]);
    expect(new Set(losses).size).toBe(3);
    expect(losses[3]).toBe(losses[0]);
    for (const loss of losses) expect(Math.abs(loss / without - 1)).toBeLessThan(0.5);
  });

  async function lossesOf(
    model: ImageTextToTextLM,
    seeds: number[],
  ): Promise<{ losses: number[]; without: number }> {
    const tokens = model.imageTokens(image);
    const row = (...prompt: number[]): number[] => [
      ...Array<number>(tokens).fill(model.imageTokenId),
      ...prompt,
    ];
    const batch = {
      inputIds: int64([row(0, 5, 2), row(0, 7, 2)]),
      attentionMask: int64([row(0, 0, 0), row(0, 0, 0)].map((ids) => ids.map(() => 1))),
      labels: int64([
        [4, 9, 2],
        [6, 2, -100],
      ]),
      pixelValues: tensor("float32", [2, 3, 33, 20], Float32Array.from(new Numbers(7).fill([2, 3, 33, 20]))),
    };
    const feeds = { ...(await model.parameterFeeds()), ...imageTextFeeds(model, batch) };
    const run = async (loss: Value, more: Record<string, Tensor>): Promise<number> =>
      ((await evaluate(engine(), { loss }, { ...feeds, ...more }))["loss"]!.data as Float32Array)[0]!;
    const losses: number[] = [];
    for (const seed of seeds)
      losses.push(
        await run(imageTextLoss(model, { image, dropout: true }), imageTextNoise(model, batch, seed)),
      );
    return { losses, without: await run(imageTextLoss(model, { image }), {}) };
  }
});

describe("where a picture's features go", () => {
  test("the features of all pictures in the order of the tokens of all prompts", () => {
    const ids = int64([
      [9, 9, 4, 9],
      [3, 9, 9, 9],
    ]);
    expect(imageRows(ids, { imageTokenId: 9, features: 6 })).toEqual(
      int64([
        [0, 1, -1, 2],
        [-1, 3, 4, 5],
      ]),
    );
  });

  test("prompts with other numbers of tokens than features are refused", () => {
    for (const features of [1, 3]) {
      const rows = (): unknown => imageRows(int64([[9, 4, 9]]), { imageTokenId: 9, features });
      expect(rows).toThrow(DataError);
      expect(rows).toThrow(
        `The prompts hold 2 image tokens (9), and their pictures have ${features} features`,
      );
    }
  });

  test("the token of pictures need not have an embedding, and a picture need not be there", async () => {
    const [reference] = florence2Cases();
    const batch = await reference!.batch();
    const model = await reference!.loadBase();
    const beyond = BigInt(model.vocabSize + 5);
    const there = await lossOf(model, batch.inputIds);
    const moved = batch.inputIds.data.map((id) => (id === BigInt(model.imageTokenId) ? beyond : id));
    Object.defineProperty(model, "imageTokenId", { value: Number(beyond) });
    expect(await lossOf(model, tensor("int64", batch.inputIds.shape, moved))).toBe(there);

    async function lossOf(of: ImageTextToTextLM, inputIds: Tensor<"int64">): Promise<number> {
      const { loss } = await evaluate(
        engine(),
        { loss: imageTextLoss(of, { image: imageSizeOf(batch) }) },
        { ...(await of.parameterFeeds()), ...imageTextFeeds(of, { ...batch, inputIds }) },
      );
      return (loss!.data as Float32Array)[0]!;
    }
  });

  test("a text alone is read as BART reads it", async () => {
    const model = random(withText({ dropout: 0 }));
    const batch = {
      inputIds: int64([[0, 6, 8, 2]]),
      attentionMask: int64([[1, 1, 1, 1]]),
      labels: int64([[5, 2]]),
    };
    const { loss } = await evaluate(
      engine(),
      { loss: seq2seqLoss(model) },
      { ...(await model.parameterFeeds()), ...seq2seqFeeds(model, batch) },
    );
    expect((loss!.data as Float32Array)[0]).toBeGreaterThan(1);
  });

  test("a feature map beyond the position table is refused while the graph is built", () => {
    const model = random(withVision({ max_position_embeddings: 4 }));
    const { pixelValues } = imageInputs(model, image);
    expect(() => model.imageFeatures(pixelValues)).toThrow(
      /too large: its feature map has 5 × 3 places, and the model knows 4 rows and columns/,
    );
  });
});

test("a checkpoint without the temporal embedding computes it", async () => {
  const [reference] = florence2Cases();
  const batch = await reference!.batch();
  const model = (await reference!.loadBase()) as Florence2ForConditionalGeneration;
  const { pixelValues } = imageInputs(model, imageSizeOf(batch));
  const features = async (): Promise<Float32Array> =>
    (
      await evaluate(
        engine(),
        { features: model.imageFeatures(pixelValues) },
        { ...(await model.parameterFeeds()), ...imageTextFeeds(model, batch) },
      )
    )["features"]!.data as Float32Array;
  const stored = await features();
  const [[, buffer]] = [...model.model.multi_modal_projector.namedBuffers()] as [[string, ModuleBuffer]];
  expect(buffer.storage).toBeDefined();
  buffer.storage = undefined;
  expect(await features()).toEqual(stored);
});

import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { moduleTreeOf } from "../../../src/adapters/index.ts";
import { olderTree } from "../../../src/adapters/older-tree.ts";
import { olderLayoutOf } from "../../../src/models/older-layouts.ts";
import {
  type Cost,
  type CostOptions,
  estimateCost,
  type ModuleTree,
  type SelectionConfig,
  selectTargets,
} from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";
import { build, small } from "../../models/florence2-small.ts";

const skeleton = findSkeleton("florence2-base", join(import.meta.dirname, "x"));
const costOf = (config: SelectionConfig, options?: CostOptions, tree: ModuleTree = skeleton): Cost =>
  estimateCost(tree, selectTargets(tree, config), options);
const qv: SelectionConfig = { r: 8, targetModules: ["q_proj", "v_proj"] };
const tower = ({ towers }: Cost, end: string) => towers.find(({ path }) => path.endsWith(end))!;

describe("a picture and its text", () => {
  test("by default are what Florence-2's processor makes, and that is said", () => {
    const { batch, towers, per, assumptions } = costOf(qv);
    expect(per).toBe("example");
    expect(batch).toEqual({
      ...{
        batchSize: 1,
        sequenceLength: 577 + 16,
        targetLength: 64,
        labelFraction: 1,
        imageSize: [768, 768],
      },
    });
    expect(towers.map(({ path, positions, layers }) => [path, positions, layers])).toEqual([
      ["model.vision_tower", 576, 16],
      ["model.multi_modal_projector", 577, 0],
      ["model.language_model.encoder", 593, 6],
      ["model.language_model.decoder", 64, 6],
    ]);
    expect(assumptions).toContain("Pictures are 768 × 768 pixels: give imageSize for others.");
    expect(assumptions).toContain("The encoder reads 577 tokens of the picture and 16 of the prompt.");
  });

  test.each<[string, CostOptions, vision: number, source: number]>([
    ["a square", { imageSize: 384 }, 144, 145 + 16],
    ["height and width", { imageSize: [480, 640] }, 15 * 20, 301 + 16],
    ["tokens of a picture", { imageTokens: 577 }, 576, 577 + 16],
    ["a length of its own", { imageSize: 384, sequenceLength: 200 }, 144, 200],
  ])("have other sizes: %s", (_, options, vision, source) => {
    const cost = costOf(qv, options);
    expect(tower(cost, "vision_tower").positions).toBe(vision);
    expect(tower(cost, "encoder").positions).toBe(source);
  });

  test("height and width are not each other's", () => {
    // 5 × 3 windows of 3 × 3 places against 3 × 5: the same work; windows that do not divide one side are filled up
    const tree = moduleTreeOf(build(small));
    const options = (height: number, width: number): CostOptions => ({
      imageSize: [height, width],
      sequenceLength: 30,
    });
    const lying = costOf(qv, options(20, 33), tree);
    const standing = costOf(qv, options(33, 20), tree);
    expect(lying.forwardFlops).toEqual(standing.forwardFlops);
    expect(costOf(qv, options(33, 33), tree).forwardFlops.total).toBeGreaterThan(lying.forwardFlops.total);
  });

  test("what the model cannot read is said", () => {
    expect(costOf(qv).problems).toEqual([]);
    expect(costOf(qv, { imageSize: 2000 }).problems).toEqual([
      "A picture of 2000 × 2000 pixels has a feature map of 63 × 63 places; the model knows 50 rows and columns.",
      "model.language_model.encoder knows 1024 positions; the figures are for 3986.",
    ]);
    expect(costOf(qv, { targetLength: 1025 }).problems).toEqual([
      "model.language_model.decoder knows 1024 positions; the figures are for 1025.",
    ]);
    const tree = moduleTreeOf(
      build({ ...small, vision_config: { ...small.vision_config, patch_padding: [0, 0] } }),
    );
    const { problems, towers } = costOf(qv, { imageSize: 6, sequenceLength: 20 }, tree);
    expect(problems).toEqual(["Of a picture of 6 × 6 pixels nothing is left behind model.vision_tower."]);
    expect(towers[0]).toMatchObject({ positions: null, forwardFlops: null });
  });
});

describe("what is saved", () => {
  test("a frozen tower saves what all-linear spends in it", () => {
    const decoder = costOf({ r: 8, targetModules: ".*decoder.*q_proj" }, { batchSize: 3 });
    const full = costOf({ r: 8, targetModules: "all-linear" }, { batchSize: 3 });
    expect(decoder.saved.towers.map(({ path }) => path)).toEqual(
      full.towers.slice(0, 3).map(({ path }) => path),
    );
    for (const [i, saved] of decoder.saved.towers.entries()) {
      expect(saved.backwardFlops).toBe(full.towers[i]!.backwardFlops!.total);
      expect(saved.activationBytes).toBe(full.towers[i]!.activationBytes);
      expect(saved.backwardShare).toBeCloseTo(saved.backwardFlops / full.backwardFlops.total, 12);
      expect(saved.activationShare).toBeCloseTo(saved.activationBytes / full.activationBytes, 12);
    }
    expect(full.saved.towers).toEqual([]);
  });

  test("of Florence-2-base, the vision tower is most", () => {
    const [vision] = costOf(qv).saved.towers;
    expect(vision!.backwardShare).toBeGreaterThan(0.8);
    expect(vision!.activationShare).toBeGreaterThan(0.8);
  });

  test("adapters in the vision tower leave none frozen", () => {
    expect(costOf({ targetModules: ["qkv"] }).saved.towers).toEqual([]);
  });
});

describe("parameters of towers", () => {
  test("are the model's but the embedding", () => {
    const { towers } = costOf(qv);
    const embedding = 51289 * 768;
    expect(towers.reduce((sum, { parameters }) => sum + parameters, embedding)).toBe(skeleton.numParameters);
    expect(towers[0]!.parameters).toBe(90_368_000);
  });

  test.each<[string, SelectionConfig]>([
    ["q and v", qv],
    ["every linear layer", { targetModules: "all-linear" }],
    ["biases", { ...qv, bias: "all" }],
    ["biases of adapted layers", { ...qv, bias: "lora_only" }],
    ["the projector whole", { ...qv, modulesToSave: ["multi_modal_projector"] }],
    ["convolutions", { targetModules: ["conv"], modulesToSave: ["convs.3.norm"] }],
    [
      "rows, columns, positions",
      { targetModules: ["row_embeddings", "column_embeddings", "embed_positions"] },
    ],
  ])("that are trained add up: %s", (_, config) => {
    const { towers, trainableParameters } = costOf(config);
    expect(towers.reduce((sum, one) => sum + one.trainableParameters, 0)).toBe(trainableParameters);
  });
});

test("heads, groups and windows are config.json's", () => {
  const vision = (changes: object): ModuleTree =>
    moduleTreeOf(build({ ...small, vision_config: { ...small.vision_config, ...changes } }));
  const kept = (tree: ModuleTree): number =>
    costOf({ r: 2, targetModules: ["qkv"] }, { imageSize: 48 }, tree).activationBytes;
  const plain = kept(vision({}));
  expect(kept(vision({ num_heads: [4, 6] }))).toBeGreaterThan(plain);
  expect(kept(vision({ window_size: 6 }))).toBeGreaterThan(plain);
  expect(kept(vision({ num_groups: [1, 1] }))).toBeGreaterThan(plain);
  expect(costOf(qv, {}, vision({})).assumptions.join("\n")).not.toContain("DaViT");
  expect(costOf(qv).assumptions.join("\n")).toContain("DaViT's windows are 12 × 12");
});

test("names of another layout are followed without knowing DaViT", () => {
  const older = olderTree(skeleton, olderLayoutOf(skeleton)!);
  const { towers, trainableParameters } = costOf({ targetModules: ["qkv"] }, {}, older);
  expect(trainableParameters).toBe(costOf({ targetModules: ["qkv"] }).trainableParameters);
  expect(towers.map(({ path }) => path)).toContain("language_model.model.encoder");
});

// as docs/cost.md has them: the largest resident set of four steps, in GB
test.each<[string, SelectionConfig, batchSize: number, measured: number]>([
  [
    "the top, q and v",
    { r: 8, targetModules: ".*\\.(encoder\\.layers\\.[45]|decoder)\\..*\\.[qv]_proj" },
    1,
    1.8,
  ],
  [
    "the top, q and v",
    { r: 8, targetModules: ".*\\.(encoder\\.layers\\.[45]|decoder)\\..*\\.[qv]_proj" },
    4,
    3.4,
  ],
  ["the vision tower", { r: 8, targetModules: ".*vision_tower.*\\.qkv" }, 1, 4.55],
  ["every linear layer", { r: 16, targetModules: "all-linear" }, 1, 4.75],
  ["every linear layer", { r: 16, targetModules: "all-linear" }, 2, 7.95],
])("memory is near what was measured: %s, %#", (_, config, batchSize, measured) => {
  const { memory, activationBytes, trainableParameters } = costOf(config, {
    ...{ batchSize, sequenceLength: 587, targetLength: 32 },
  });
  const { frozenBytes, trainedBytes, overheadBytes, totalBytes } = memory;
  expect(frozenBytes).toBe(4 * skeleton.numParameters);
  expect(trainedBytes).toBe(16 * trainableParameters);
  expect(frozenBytes + trainedBytes + activationBytes + overheadBytes).toBe(totalBytes);
  expect(Math.abs(totalBytes / 1e9 / measured - 1)).toBeLessThan(0.18);
});

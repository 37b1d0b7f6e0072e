import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Structure } from "../../../src/selection/structure/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";

const structureOf = (name: string) => new Structure(findSkeleton(name, join(import.meta.dirname, "x")));
const blocksOf = (name: string) =>
  structureOf(name).blocks.map(({ pattern, count, lists }) => [pattern, count, lists.length]);

describe("blocks", () => {
  test.each([
    ["llama-3.2-1b", [["layers", 16, 1]]],
    [
      "bart-base",
      [
        ["encoder.layers", 6, 1],
        ["decoder.layers", 6, 1],
      ],
    ],
    // stages of different depth are listed one by one
    [
      "florence2-base",
      [
        ["convs", 4, 1],
        ["blocks", 4, 1],
        ["blocks.0", 1, 1],
        ["blocks.1", 1, 1],
        ["blocks.2", 9, 1],
        ["blocks.3", 1, 1],
        ["encoder.layers", 6, 1],
        ["decoder.layers", 6, 1],
      ],
    ],
    // lists of the same length in every item are one block; the shorter tail belongs to both
    [
      "resnet-50",
      [
        ["stages", 4, 1],
        ["stages.0.layers", 3, 1],
        ["stages.1.layers", 4, 1],
        ["stages.2.layers", 6, 1],
        ["stages.3.layers", 3, 1],
        ["layer", 3, 16],
      ],
    ],
    // the steps of a Sequential (merger.mlp.0, .1, .2) are no layers
    [
      "qwen2-vl-2b",
      [
        ["blocks", 32, 1],
        ["layers", 28, 1],
      ],
    ],
  ] as const)("of %s", (name, expected) => {
    expect(blocksOf(name)).toEqual(expected);
  });
});

test("towers are what outermost stacks stand in", () => {
  const structure = structureOf("florence2-base");
  expect(structure.towers).toEqual([
    "model.vision_tower",
    "model.language_model.encoder",
    "model.language_model.decoder",
  ]);
  expect(structure.towerOf("model.language_model.decoder.layers.3.fc1")).toBe("model.language_model.decoder");
  expect(structure.towerOf("model.vision_tower.blocks.2.8.channel_block")).toBe("model.vision_tower");
  expect(structure.towerOf("model.multi_modal_projector")).toBeUndefined();
});

test("a place is the template of the name and the numbers taken out of it", () => {
  const { template, positions } = structureOf("florence2-base").placeOf(
    "model.vision_tower.blocks.2.8.channel_block.ffn.fn.fc1",
  );
  expect(template).toBe("model.vision_tower.blocks.#.#.channel_block.ffn.fn.fc1");
  expect(positions.map(({ list, index }) => [list.path, index])).toEqual([
    ["model.vision_tower.blocks", 2],
    ["model.vision_tower.blocks.2", 8],
  ]);
});

import { describe, expect, test } from "vitest";
import { constantOf, input, type Value } from "../../src/graph/index.ts";
import { Conv2d, type Layer, LayerNorm, PositionEmbedding, ScaledEmbedding } from "../../src/nn/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });

/** Gives a layer numbers for weights, named as their fields. */
function filled<L extends Layer>(layer: L): L {
  for (const [i, [name, parameter]] of layer.parameters().entries()) {
    parameter.name = name;
    parameter.data = tensorOf(new Numbers(i + 1).fill(parameter.shape), parameter.shape, "float32") as never;
  }
  return layer;
}

async function run(layer: Layer, y: Value): Promise<number[]> {
  const feeds = Object.fromEntries(layer.parameters().map(([name, { data }]) => [name, data!]));
  return numbersOf((await evaluate(engine(), { y }, feeds))["y"]!);
}

const values = (layer: Layer, name: string): number[] =>
  numbersOf(layer.parameters().find(([segment]) => segment === name)![1].data!);

describe("Conv2d", () => {
  test("has torch's parameters; one number stands for both axes", () => {
    const layer = new Conv2d(4, 6, { kernelSize: 3, stride: [2, 1], padding: 1, groups: 2 });
    expect(layer.parameters().map(([name, { shape }]) => [name, shape])).toEqual([
      ["weight", [6, 2, 3, 3]],
      ["bias", [6]],
    ]);
    expect([layer.kind, layer.className]).toEqual(["conv2d", "Conv2d"]);
    expect(filled(layer).forward(input("x", "float32", [1, 4, 8, 8])).shape).toEqual([1, 6, 4, 8]);
  });

  test("without bias, of an image of one place, is a product with the kernel's middle", async () => {
    const layer = filled(new Conv2d(2, 2, { kernelSize: 3, padding: 1, bias: false }));
    const w = values(layer, "weight");
    const expected = [0, 1].map((out) => 0.5 * w[out * 18 + 4]! - 2 * w[out * 18 + 9 + 4]!);
    const y = layer.forward(constantOf([0.5, -2], [1, 2, 1, 1]));
    expect(relativeL2(await run(layer, y), expected)).toBeLessThan(1e-6);
  });

  test("refuses groups that do not divide", () => {
    expect(() => new Conv2d(4, 6, { kernelSize: 1, groups: 4 })).toThrow(
      /4 groups do not divide 4 and 6 channels/,
    );
  });
});

test("LayerNorm centres and scales with the variance of the population", async () => {
  const layer = filled(new LayerNorm(2, { epsilon: 0 }));
  const [w, b] = [values(layer, "weight"), values(layer, "bias")];
  const y = layer.forward(constantOf([3, 7], [1, 2]));
  expect(relativeL2(await run(layer, y), [b[0]! - w[0]!, b[1]! + w[1]!])).toBeLessThan(1e-6);
});

test("PositionEmbedding skips its first rows, ScaledEmbedding multiplies", async () => {
  const positions = filled(new PositionEmbedding(3, 2, { className: "P", offset: 2 }));
  expect(positions.weight.shape).toEqual([5, 2]);
  const places = constantOf([0, 2], [2], "int64");
  const table = values(positions, "weight");
  expect(await run(positions, positions.forward(places))).toEqual([
    ...table.slice(4, 6),
    ...table.slice(8, 10),
  ]);
  const scaled = filled(new ScaledEmbedding(3, 2, { className: "S", scale: 4 }));
  const rows = values(scaled, "weight");
  expect(await run(scaled, scaled.forward(places))).toEqual(
    [...rows.slice(0, 2), ...rows.slice(4, 6)].map((x) => 4 * x),
  );
});

import { describe, expect, test } from "vitest";
import { constant, gradients, input, nodesOf, op, symbol, type Value } from "../../src/graph/index.ts";
import type { ConvOptions } from "../../src/graph/ops/build.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const image = (...shape: Parameters<typeof input>[2]): Value => input("x", "float32", shape);
const kernel = (...shape: number[]): Value => input("w", "float32", shape);
const total = (y: Value): Value => op.reduceSum(op.mul(y, y), { axes: [0, 1, 2, 3], keepdims: false });

describe("sizes", () => {
  test.each<[string, Value, Value, ConvOptions, (string | number)[]]>([
    [
      "a rest is left over",
      image(2, 3, 9, 11),
      kernel(4, 3, 7, 7),
      { strides: [4, 4], pads: [3, 3, 3, 3] },
      [2, 4, 3, 3],
    ],
    ["dilation", image(1, 1, 9, 9), kernel(1, 1, 3, 2), { dilations: [4, 2] }, [1, 1, 1, 7]],
    ["a symbolic batch", image(symbol("n"), 2, 4, 4), kernel(6, 1, 1, 3), { group: 2 }, ["n", 6, 4, 2]],
    [
      "symbolic sizes",
      image(1, 1, symbol("h"), symbol("w")),
      kernel(1, 1, 3, 3),
      { pads: [1, 1, 1, 1] },
      [1, 1, "h", "w"],
    ],
  ])("%s", (_, x, w, options, expected) => {
    expect(op.conv(x, w, options).shape.map((dim) => (typeof dim === "number" ? dim : String(dim)))).toEqual(
      expected,
    );
  });

  test.each<[string, () => Value, RegExp]>([
    [
      "three axes",
      () => op.conv(image(1, 3, 4), kernel(1, 3, 1, 1)),
      /Conv: needs \[batch, channels, height, width\]/,
    ],
    [
      "other channels",
      () => op.conv(image(1, 3, 4, 4), kernel(2, 2, 1, 1)),
      /does not fit 3 channels in 1 groups/,
    ],
    [
      "groups that do not divide",
      () => op.conv(image(1, 4, 4, 4), kernel(3, 2, 1, 1), { group: 2 }),
      /does not fit 4 channels in 2 groups/,
    ],
    [
      "a kernel larger than the image",
      () => op.conv(image(1, 1, 2, 9), kernel(1, 1, 3, 3)),
      /larger than the padded/,
    ],
    [
      "a stride of 0",
      () => op.conv(image(1, 1, 4, 4), kernel(1, 1, 1, 1), { strides: [0, 1] }),
      /strides \[0,1\].* must be 1 or more/,
    ],
    [
      "negative pads",
      () => op.conv(image(1, 1, 4, 4), kernel(1, 1, 1, 1), { pads: [0, -1, 0, 0] }),
      /pads \[0,-1,0,0\] 0 or more/,
    ],
    [
      "a stride over an unknown size",
      () => op.conv(image(1, 1, symbol("h"), 4), kernel(1, 1, 2, 2), { strides: [2, 2] }),
      /give height and width as numbers/,
    ],
    [
      "a bias of another size",
      () => op.conv(image(1, 1, 4, 4), kernel(2, 1, 1, 1), { bias: input("b", "float32", [3]) }),
      /the bias \[3\] does not fit 2 channels/,
    ],
    [
      "too much output padding",
      () => op.convTranspose(image(1, 1, 4, 4), kernel(1, 1, 2, 2), { outputPadding: [0, 1] }),
      /output padding of \[0,1\]/,
    ],
    [
      "pads that leave nothing",
      () => op.convTranspose(image(1, 1, 1, 4), kernel(1, 1, 2, 2), { pads: [1, 0, 1, 0] }),
      /leave nothing of \[1, 1, 1, 4\]/,
    ],
    [
      "a transposed kernel of other channels",
      () => op.convTranspose(image(1, 3, 4, 4), kernel(2, 1, 1, 1)),
      /does not fit 3 channels/,
    ],
    [
      "a norm of another size",
      () => op.layerNorm(image(2, 4), input("s", "float32", [4]), input("b", "float32", [3]), 1e-5),
      /scale or bias \[3\] does not fit \[2, 4\]/,
    ],
  ])("%s", (_, build, message) => {
    expect(build).toThrow(message);
  });
});

test("gradients of a symbolic batch equal those of a numbered one", async () => {
  const shape = [3, 4, 5, 6];
  const options: ConvOptions = { group: 2, strides: [2, 3], pads: [1, 0, 2, 1] };
  const feeds = {
    x: tensorOf(new Numbers(1).fill(shape), shape, "float32"),
    w: tensorOf(new Numbers(2).fill([6, 2, 3, 2]), [6, 2, 3, 2], "float32"),
  };
  const slopes = async (x: Value) => {
    const w = kernel(6, 2, 3, 2);
    const [dx, dw] = gradients(total(op.conv(x, w, options)), [x, w]);
    return evaluate(engine(), { dx: dx!, dw: dw! }, feeds);
  };
  const [symbolic, numbered] = [await slopes(image(symbol("n"), 4, 5, 6)), await slopes(image(3, 4, 5, 6))];
  for (const name of ["dx", "dw"])
    expect(relativeL2(numbersOf(symbolic[name]!), numbersOf(numbered[name]!)), name).toBeLessThan(1e-6);
});

test("a frozen kernel costs the gradient no convolution of its own", () => {
  const x = image(1, 2, 6, 6);
  const frozen = constant(tensorOf(new Numbers(1).fill([2, 2, 3, 3]), [2, 2, 3, 3], "float32"));
  const ops = nodesOf(gradients(total(op.conv(x, frozen)), [x])).map((node) => node.op);
  expect(ops.filter((name) => name.startsWith("Conv")).sort()).toEqual(["Conv", "Conv"]);
});

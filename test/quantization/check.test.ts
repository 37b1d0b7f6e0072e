import { describe, expect, test } from "vitest";
import { gradients, input, op, symbol, type Value } from "../../src/graph/index.ts";
import { Linear, PreTrainedModel } from "../../src/nn/index.ts";
import { checkProducts, quantizeWeights } from "../../src/quantization/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, numbersOf, sharedEngine } from "../support/run-graph.ts";

const [rows, inner, out] = [24, 64, 32];
const vocabulary = 5000;
const engine = sharedEngine({ threads: 1 });

/** One frozen linear layer, whose weight lies in memory as a checkpoint's does. */
class OneLayer extends PreTrainedModel {
  override readonly className = "OneLayer";
  override readonly modelType = "one-layer";
  override readonly inputEmbeddingPath = null;
  override readonly outputEmbeddingPath = null;
  override readonly tiedEmbeddings = false;
  override readonly nameOrPath = "memory";
  readonly linear: Linear;

  constructor(weight: readonly number[]) {
    super();
    this.linear = new Linear(inner, weight.length / inner);
    const bytes = new Uint8Array(Float32Array.from(weight).buffer);
    this.linear.weight.name = "linear.weight";
    this.linear.weight.storage = {
      name: "linear.weight",
      dtype: "float32",
      shape: [weight.length / inner, inner],
      source: { read: async (start, end) => bytes.slice(start, end) },
      byteOffset: 0,
      byteLength: bytes.length,
    };
  }
}

const bell = (numbers: Numbers): number =>
  numbers.next(-1, 1) + numbers.next(-1, 1) + numbers.next(-1, 1) + numbers.next(-1, 1);
const bells = (seed: number, count: number): number[] => {
  const numbers = new Numbers(seed);
  return Array.from({ length: count }, () => bell(numbers));
};

/** Σ y · dy of a layer that is checked with inputs x and gradients dy. */
async function checked(
  x: Tensor,
  dy: Tensor,
  { weight = bells(1, out * inner), ...options }: { weight?: readonly number[]; maxError?: number } = {},
) {
  const model = new OneLayer(weight);
  const from = input("x", "float32", [rows, inner]);
  const lossOf = (y: Value) =>
    op.reduceSum(op.mul(y, input("dy", "float32", [rows, out])), { axes: [0, 1], keepdims: false });
  const run = async () => {
    const y = model.linear.forward(from);
    const outputs = await evaluate(engine(), { y, dx: gradients(lossOf(y), [from])[0]! }, { x, dy });
    return { y: numbersOf(outputs["y"]!), dx: numbersOf(outputs["dx"]!) };
  };
  const exact = await run();
  const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
  const plain = await run();
  const loss = lossOf(model.linear.forward(from));
  const values = [loss, ...gradients(loss, [from])];
  const [layer] = await checkProducts(report, { engine: engine(), values, feeds: { x, dy }, ...options });
  return { layer: layer!, linear: model.linear, exact, plain, after: await run() };
}

const even = tensor("float32", [rows, inner], Float32Array.from(bells(2, rows * inner)));
const gradient = tensor("float32", [rows, out], Float32Array.from(bells(3, rows * out)));
/** `even` with some channels many times as large. */
const withLarge = (times: number, ...channels: number[]): Tensor<"float32"> =>
  tensor(
    "float32",
    [rows, inner],
    even.data.map((value, i) => (channels.includes(i % inner) ? value * times : value)),
  );

describe("the check of a layer's products", () => {
  test("finds nothing wrong with bell-shaped values", async () => {
    const { layer, plain, after, exact } = await checked(even, gradient);
    expect(layer).toMatchObject({ path: "linear", outliers: [], quantized: true });
    for (const error of [layer.forwardError, layer.backwardError!]) {
      expect(error).toBeGreaterThan(0.001);
      expect(error).toBeLessThan(0.015);
    }
    expect(after).toEqual(plain);
    expect(relativeL2(after.y, exact.y)).toBeLessThan(0.015);
  });

  test("keeps apart the channels that dwarf the others", async () => {
    const x = withLarge(60, 7, 40);
    const { layer, linear, exact, plain, after } = await checked(x, gradient);
    expect(layer).toMatchObject({ outliers: [7, 40], quantized: true });
    expect(linear.quantized!.outliers!.columns.shape).toEqual([out, 2]);
    expect(relativeL2(after.y, exact.y)).toBeLessThan(relativeL2(plain.y, exact.y) / 4);
    expect(relativeL2(after.dx, exact.dx)).toBeLessThan(0.02);
  });

  test("gives a layer its weight back where an error is too large", async () => {
    const { layer, linear, exact, after } = await checked(even, gradient, { maxError: 0.001 });
    expect(layer.quantized).toBe(false);
    expect(linear.quantized).toBeUndefined();
    expect(after).toEqual(exact);
  });

  test("has nothing to look at where products round nothing", async () => {
    const model = new OneLayer(bells(1, out * inner));
    const report = await quantizeWeights(model, { dtype: "int4", cacheDirectory: null });
    const y = model.linear.forward(input("x", "float32", [rows, inner]));
    const loss = op.reduceSum(y, { axes: [0, 1], keepdims: false });
    expect(report.quantized).toHaveLength(1);
    expect(await checkProducts(report, { engine: engine(), values: [loss], feeds: { x: even } })).toEqual([]);
  });

  test("takes some channels of a vocabulary, forward", async () => {
    const model = new OneLayer(bells(1, vocabulary * inner));
    const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
    const x = input("x", "float32", [rows, inner]);
    const y = model.linear.forward(x);
    const loss = op.reduceSum(op.mul(y, y), { axes: [0, 1], keepdims: false });
    const values = [loss, ...gradients(loss, [x])];
    const [layer] = await checkProducts(report, { engine: engine(), values, feeds: { x: even } });
    expect(layer).toMatchObject({ outliers: [], rounded: { forward: true, backward: true } });
    expect(layer!.forwardError).toBeGreaterThan(0.001);
    expect(layer!.forwardError).toBeLessThan(0.015);
  });

  test("says nothing of a direction that training has no product for", async () => {
    const model = new OneLayer(bells(1, out * inner));
    const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
    const loss = op.reduceSum(model.linear.forward(input("x", "float32", [rows, inner])), { axes: [0, 1] });
    const [layer] = await checkProducts(report, { engine: engine(), values: [loss], feeds: { x: even } });
    expect(layer).not.toHaveProperty("backwardError");
    expect(layer!.quantized).toBe(true);
    expect(layer!.forwardError).toBeGreaterThan(0.001);
  });

  test("looks at every place where a layer is used", async () => {
    const model = new OneLayer(bells(1, out * inner));
    const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
    const sum = (name: string): Value =>
      op.reduceSum(model.linear.forward(input(name, "float32", [rows, inner])), { axes: [0, 1] });
    const [layer] = await checkProducts(report, {
      engine: engine(),
      values: [op.add(sum("x"), sum("far"))],
      feeds: { x: even, far: withLarge(60, 7) },
    });
    expect(layer!.outliers).toEqual([7]);
  });

  test("takes rows from everywhere in a long batch", async () => {
    const model = new OneLayer(bells(1, out * inner));
    const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
    const long = 1000;
    const data = Float32Array.from(bells(2, long * inner), (value, i) =>
      i >= (long / 2) * inner && i % inner === 7 ? 60 * value : value,
    );
    const loss = op.reduceSum(model.linear.forward(input("x", "float32", [symbol("n"), inner])), {
      axes: [0, 1],
    });
    const [layer] = await checkProducts(report, {
      engine: engine(),
      values: [loss],
      feeds: { x: tensor("float32", [long, inner], data) },
    });
    expect(layer!.outliers).toEqual([7]);
  });

  test("sees that a vocabulary's gradients are of one number each", async () => {
    // What rounding leaves of a row is the label; the others, which add up to as much, are below half a step.
    const model = new OneLayer(bells(1, vocabulary * inner));
    const report = await quantizeWeights(model, { dtype: "int8", cacheDirectory: null });
    const x = input("x", "float32", [rows, inner]);
    const dy = input("dy", "float32", [rows, vocabulary]);
    const loss = op.reduceSum(op.mul(model.linear.forward(x), dy), { axes: [0, 1], keepdims: false });
    const gradientOfLogits = Float32Array.from(bells(3, rows * vocabulary), (value, i) =>
      i % vocabulary === 17 ? 40 : value / 20,
    );
    const [layer] = await checkProducts(report, {
      engine: engine(),
      values: gradients(loss, [x]),
      feeds: { x: even, dy: tensor("float32", [rows, vocabulary], gradientOfLogits) },
    });
    expect(layer!.backwardError).toBeGreaterThan(0.05);
    expect(model.linear.quantized!.rounded.backward).toBe(false);
  });

  test("sees errors of gradients too", async () => {
    // Two large channels whose parts of the result cancel: what is left of it are the others, which rounding wipes out.
    const weight = bells(1, out * inner);
    weight.splice(inner, inner, ...weight.slice(0, inner));
    const cancelling = gradient.data.map((value, i) => (i % out > 1 ? value : i % out === 0 ? 300 : -300));
    const { layer, plain, after, exact } = await checked(even, tensor("float32", [rows, out], cancelling), {
      weight,
    });
    expect(layer.forwardError).toBeLessThan(0.015);
    expect(layer.backwardError).toBeGreaterThan(0.3);
    expect(layer).toMatchObject({ quantized: true, rounded: { forward: true, backward: false } });
    expect(relativeL2(plain.dx, exact.dx)).toBeGreaterThan(0.3);
    expect(relativeL2(after.dx, exact.dx)).toBeLessThan(0.015); // the weight's own error
    expect(after.y).toEqual(plain.y);
  });
});

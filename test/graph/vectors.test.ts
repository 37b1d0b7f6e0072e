import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { constantOf, gradients, input, op, scalar, type Value } from "../../src/graph/index.ts";
import type { DType } from "../../src/tensor/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

/** What scripts/record_ops.py writes; see there. */
type Recorded = { dtype: DType; shape: number[]; data: number[] };
type Vector = {
  op: string;
  case: string;
  // biome-ignore lint/suspicious/noExplicitAny: attributes differ by operator; each builder below knows its own.
  attrs: any;
  inputs: Recorded[];
  outputs: Recorded[];
  upstream: Recorded[];
  gradients: (Recorded | null)[];
};

const read = (name: string): Buffer => readFileSync(new URL(`../vectors/${name}`, import.meta.url));
const vectors = JSON.parse(gunzipSync(read("ops.json.gz")).toString()) as Vector[];
const manifest = JSON.parse(read("ops.manifest.json").toString()) as {
  ops: string[];
  versions: { torch: string };
};

/**
 * Recorded in float64 and rounded, computed here in float32: relative L2. Each value is a handful of float32 roundings
 * (6e-8) from the truth, more where terms cancel.
 */
const TOLERANCE = 2e-6;

type Builder = (inputs: Value[], attrs: Vector["attrs"], vector: Vector) => Value | Value[];

const sizeOf = (x: Value, axis: number): number => x.shape.at(axis) as number;
const fixedShape = (x: Value): number[] => x.shape as number[];
const axisOf = (x: Value, axis: number): number => (axis + x.rank) % x.rank;

const reduction =
  (build: typeof op.reduceSum): Builder =>
  ([x], { axes, keepdims }) =>
    build(x!, { axes, keepdims: keepdims === 1 });

const binary =
  (build: (a: Value, b: Value) => Value): Builder =>
  ([a, b]) =>
    build(a!, b!);
const unary =
  (build: (x: Value) => Value): Builder =>
  ([x]) =>
    build(x!);

/** MatMul with vectors, which NumPy (and ONNX) extend by an axis of 1. */
const matmul: Builder = ([a, b]) => {
  const product = op.matmul(
    a!.rank === 1 ? op.unsqueeze(a!, 0) : a!,
    b!.rank === 1 ? op.unsqueeze(b!, 1) : b!,
  );
  const rows = a!.rank === 1 ? op.squeeze(product, -2) : product;
  return b!.rank === 1 ? op.squeeze(rows, -1) : rows;
};

/** Limits from the end and steps as ONNX has them; a step other than 1 picks its elements one by one. */
const slice: Builder = ([x], { starts, ends, axes, steps }) =>
  (starts as number[]).reduce((y, start, i) => {
    const axis = axisOf(y, axes[i]);
    const size = sizeOf(y, axis);
    const step = steps[i] as number;
    const clamp = (limit: number, low: number, high: number): number =>
      Math.min(Math.max(limit < 0 ? limit + size : limit, low), high);
    const [low, high] = step > 0 ? [0, size] : [-1, size - 1];
    const [from, to] = [clamp(start, low, high), clamp(ends[i], low, high)];
    if (step === 1) return op.slice(y, axis, from, to);
    const indices = Array.from({ length: Math.ceil((to - from) / step) }, (_, k) => from + k * step);
    return op.gather(y, constantOf(indices, [indices.length], "int64"), axis);
  }, x!);

/** loss_i = ln Σ exp x_i - x_i[label], 0 where the label is ignored. */
const crossEntropy: Builder = ([x, labels], { ignore_index, reduction }) => {
  const counted = op.not(op.equal(labels!, ignore_index));
  const picked = op.gatherElements(x!, op.unsqueeze(op.where(counted, labels!, 0), 1), 1);
  const each = op.squeeze(op.sub(op.reduceLogSumExp(x!), picked), 1);
  const losses = op.where(counted, each, 0);
  if (reduction === "none") return losses;
  const sum = op.reduceSum(losses, { axes: [0], keepdims: false });
  const count = op.reduceSum(op.cast(counted, "float32"), { axes: [0], keepdims: false });
  return reduction === "mean" ? op.div(sum, count) : sum;
};

/** softmax(q kᵀ · scale + mask) v, queries of a group sharing their keys and values. */
const attention: Builder = ([q, k, v, mask], { scale }) => {
  const [batch, heads, length, size] = fixedShape(q!) as [number, number, number, number];
  const groups = sizeOf(k!, 1);
  const grouped = op.reshape(q!, [batch, groups, heads / groups, length, size]);
  const scores = op.matmul(grouped, op.unsqueeze(op.transposeLast(k!), 2));
  const weights = op.softmax(op.add(op.mul(scores, scale), op.unsqueeze(mask!, 2)));
  return op.reshape(op.matmul(weights, op.unsqueeze(v!, 2)), [batch, heads, length, size]);
};

const rotary: Builder = ([x, cos, sin]) => {
  const [batch, , length] = fixedShape(x!) as [number, number, number];
  const positions = Array.from({ length: batch * length }, (_, i) => i % length);
  return op.rotaryEmbedding(x!, constantOf(positions, [batch, length], "int64"), cos!, sin!);
};

/** A product of our operators for every operator that was recorded. */
const builders: Record<string, Builder> = {
  Add: binary(op.add),
  Sub: binary(op.sub),
  Mul: binary(op.mul),
  Div: binary(op.div),
  Pow: binary(op.pow),
  Max: binary((a, b) => op.where(op.greater(a, b), a, b)),
  Min: binary((a, b) => op.where(op.lessOrEqual(a, b), a, b)),
  Neg: unary(op.neg),
  Exp: unary(op.exp),
  Log: unary(op.log),
  Sqrt: unary(op.sqrt),
  Reciprocal: unary(op.reciprocal),
  Abs: unary((x) => op.where(op.less(x, 0), op.neg(x), x)),
  Relu: unary(op.relu),
  Sigmoid: unary(op.sigmoid),
  Tanh: unary(op.tanh),
  Erf: unary(op.erf),
  Cos: unary(op.cos),
  Sin: unary(op.sin),
  Identity: unary(op.identity),
  Gelu: ([x], { approximate }) => op.gelu(x!, approximate),
  Swish: ([x], { alpha }) => op.quickGelu(x!, alpha),
  MatMul: matmul,
  Gemm: ([a, b, c], { alpha, beta, transA, transB }) =>
    op.gemm(a!, b!, { c, alpha, beta, transA: transA === 1, transB: transB === 1 }),
  ReduceSum: reduction(op.reduceSum),
  ReduceMean: reduction(op.reduceMean),
  ReduceMax: reduction(op.reduceMax),
  ReduceMin: reduction((x, options) => op.neg(op.reduceMax(op.neg(x), options))),
  ReduceLogSumExp: reduction(op.reduceLogSumExp),
  Softmax: ([x], { axis }) => op.softmax(x!, axis),
  LogSoftmax: ([x], { axis }) => op.logSoftmax(x!, axis),
  Transpose: ([x], { perm }) => op.transpose(x!, perm),
  Reshape: ([x], { shape }) =>
    op.reshape(
      x!,
      (shape as number[]).map((size, i) => (size === 0 ? sizeOf(x!, i) : size)),
    ),
  Concat: (parts, { axis }) => op.concat(parts, axis),
  Slice: slice,
  // ONNX lets a target of 1 keep a longer axis; here a shape means what it says.
  Expand: ([x], _, { outputs }) => op.expand(x!, outputs[0]!.shape),
  Where: ([condition, a, b]) => op.where(condition!, a!, b!),
  Unsqueeze: ([x]) => op.unsqueeze(op.unsqueeze(x!, 0), -1),
  Squeeze: ([x], { axes }) => (axes as number[]).reduceRight(op.squeeze, x!),
  Split: ([x], { axis, split }) => {
    let end = 0;
    return (split as number[]).map((size) => {
      end += size;
      return op.slice(x!, axis, end - size, end);
    });
  },
  Gather: ([x, indices], { axis }) => op.gather(x!, indices!, axis),
  GatherElements: ([x, indices], { axis }) => op.gatherElements(x!, indices!, axis),
  ScatterElements: ([x, indices, updates], { axis }) => op.scatterElementsAdd(x!, indices!, updates!, axis),
  // Elements are rows of the flat tensor; rows are what they are.
  ScatterND: ([x, indices, updates]) => {
    const depth = sizeOf(indices!, -1);
    const shape = fixedShape(x!);
    const flat = shape
      .slice(0, depth)
      .reduce(
        (sum, size, i) => op.add(op.mul(sum, size), op.squeeze(op.slice(indices!, -1, i, i + 1), -1)),
        scalar(0, "int64"),
      );
    const rows = op.reshape(x!, [-1, ...shape.slice(depth)]);
    return op.reshape(op.scatterRowsAdd(rows, flat, updates!), shape);
  },
  Conv: ([x, w, bias], attributes) => op.conv(x!, w!, { ...attributes, bias }),
  ConvTranspose: ([x, w], { output_padding: outputPadding, ...attributes }) =>
    op.convTranspose(x!, w!, { ...attributes, outputPadding }),
  // Pads before all axes, then after all axes.
  Pad: ([x], { pads }) =>
    fixedShape(x!).reduce((y, _, axis) => op.pad(y, axis, pads[axis], pads[axis + x!.rank]), x!),
  LayerNormalization: ([x, weight, bias], { epsilon }) => op.layerNorm(x!, weight!, bias, epsilon),
  RMSNormalization: ([x, weight], { epsilon }) => op.rmsNorm(x!, weight!, epsilon),
  RotaryEmbedding: rotary,
  SoftmaxCrossEntropyLoss: crossEntropy,
  Attention: attention,
};

const engine = sharedEngine({ threads: 1 });

function expectClose(actual: number[], expected: Recorded, where: string): void {
  expect(relativeL2(actual, expected.data), where).toBeLessThan(TOLERANCE);
}

test("a builder stands for every operator that was recorded", () => {
  expect(Object.keys(builders).sort()).toEqual(manifest.ops);
});

describe.each(manifest.ops)(`%s agrees with PyTorch ${manifest.versions.torch}`, (name) => {
  const cases = vectors.filter((vector) => vector.op === name);
  test.each(cases.map((vector) => [vector.case, vector] as const))("%s", async (_, vector) => {
    const inputs = vector.inputs.map(({ dtype, shape }, i) => input(`x${i}`, dtype, shape));
    const feeds = Object.fromEntries(
      vector.inputs.map(({ data, shape, dtype }, i) => [`x${i}`, tensorOf(data, shape, dtype)]),
    );
    const built = builders[name]!(inputs, vector.attrs, vector);
    const outputs = Array.isArray(built) ? built : [built];
    expect(outputs.map(({ shape }) => shape)).toEqual(vector.outputs.map(({ shape }) => shape));
    const losses = outputs.map((y, i) => {
      const upstream = constantOf(vector.upstream[i]!.data, vector.upstream[i]!.shape);
      return op.reduceSum(op.mul(y, upstream), { axes: y.shape.map((_, axis) => axis), keepdims: false });
    });
    const trained = inputs.filter((_, i) => vector.gradients[i]);
    const slopes = gradients(losses.reduce(op.add), trained);
    const results = await evaluate(
      engine(),
      Object.fromEntries([...outputs.map((y, i) => [`y${i}`, y]), ...slopes.map((dx, i) => [`d${i}`, dx])]),
      feeds,
    );
    for (const [i, expected] of vector.outputs.entries())
      expectClose(numbersOf(results[`y${i}`]!), expected, `${name} ${vector.case}, output ${i}`);
    for (const [i, expected] of vector.gradients.filter((gradient) => gradient !== null).entries())
      expectClose(numbersOf(results[`d${i}`]!), expected, `${name} ${vector.case}, gradient ${i}`);
  });
});

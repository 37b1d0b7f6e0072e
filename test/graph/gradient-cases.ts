import { constantOf, type OpName, op, scalar, type Value } from "../../src/graph/index.ts";
import type { ConvOptions } from "../../src/graph/ops/build.ts";
import type { DType, Tensor } from "../../src/tensor/index.ts";
import { Numbers, tensorOf } from "../support/run-graph.ts";

/** A graph y = build(inputs), to be differentiated with respect to every float input that `wrt` allows. */
export type GradientCase = {
  readonly name: string;
  /** Float inputs are made for the dtype that the test runs in. */
  readonly inputs: (dtype: DType) => readonly Tensor[];
  readonly build: (...inputs: Value[]) => Value;
  readonly wrt?: readonly number[];
};

const numbers = new Numbers(7);

type Input = {
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly dtype?: DType;
};

/** Numbers between low and high. */
const between =
  (low: number, high: number) =>
  (...shape: number[]): Input => ({ shape, values: numbers.fill(shape, low, high) });
const any = between(-2, 2);
const positive = between(0.5, 2);
/** Away from zero, where a kink or pole may be. */
const signed = (...shape: number[]): Input => {
  const { values } = positive(...shape);
  return { shape, values: values.map((value, i) => (i % 3 === 0 ? -value : value)) };
};
/** No two values closer than 0.25. */
const distinct = (...shape: number[]): Input => {
  const { values } = any(...shape);
  const rank = values.map((_, i) => i).sort((a, b) => values[a]! - values[b]!);
  return { shape, values: values.map((_, i) => (rank.indexOf(i) - values.length / 2) * 0.25) };
};
const int64 = (shape: readonly number[], values: readonly number[]): Input => ({
  shape,
  values,
  dtype: "int64",
});
const truth = (shape: readonly number[], values: readonly number[]): Input => ({
  shape,
  values,
  dtype: "bool",
});

const int8 = (shape: readonly number[], values: readonly number[]): Input => ({
  shape,
  values,
  dtype: "int8",
});

function gradientCase(
  name: string,
  inputs: readonly Input[],
  build: GradientCase["build"],
  wrt?: readonly number[],
): GradientCase {
  return {
    name,
    inputs: (dtype) => inputs.map((input) => tensorOf(input.values, input.shape, input.dtype ?? dtype)),
    build,
    ...(wrt && { wrt }),
  };
}

/** A function of one input at several shapes. */
const unary = (build: (x: Value) => Value, input = any, prefix = ""): GradientCase[] => [
  gradientCase(`${prefix}matrix`, [input(2, 3)], build),
  gradientCase(`${prefix}scalar`, [input()], build),
];

/** A function of two inputs, broadcast in every position. */
const binary = (build: (a: Value, b: Value) => Value, left = any, right = any): GradientCase[] =>
  (
    [
      ["same shape", [2, 3], [2, 3]],
      ["a scalar on the left", [], [2, 3]],
      ["a scalar on the right", [2, 3], []],
      ["a row on the left", [3], [2, 3]],
      ["a row on the right", [2, 3], [3]],
      ["a column", [2, 3], [2, 1]],
      ["both broadcast", [2, 1, 3], [4, 1]],
      ["a middle axis of 1", [2, 2, 2], [2, 1, 2]],
    ] as const
  ).map(([name, a, b]) => gradientCase(name, [left(...a), right(...b)], build));

type ReduceFunction = (x: Value, options?: { axes?: readonly number[]; keepdims?: boolean }) => Value;
const reduction = (build: ReduceFunction, input = any): GradientCase[] => [
  gradientCase("last axis, kept", [input(2, 3)], (x) => build(x)),
  gradientCase("first axis, dropped", [input(3, 2, 2)], (x) => build(x, { axes: [0], keepdims: false })),
  gradientCase("two axes, kept", [input(2, 3, 2)], (x) => build(x, { axes: [0, 2] })),
  gradientCase("two axes, dropped", [input(2, 3, 2)], (x) => build(x, { axes: [1, -1], keepdims: false })),
  gradientCase("everything", [input(2, 3)], (x) => build(x, { axes: [0, 1], keepdims: false })),
];

/** Truth values as numbers, which is how a comparison can reach a loss. */
const comparison = (build: (a: Value, b: Value) => Value): GradientCase[] => [
  gradientCase("of floats", [any(2, 3), any(3)], (a, b) => op.cast(build(a, b), a.dtype)),
];
const logic = (build: (a: Value, b: Value) => Value): GradientCase[] => [
  gradientCase("of comparisons", [any(2, 3), any(3)], (a, b) =>
    op.cast(build(op.less(a, 0.5), op.greater(b, 0)), a.dtype),
  ),
];

const matmulShapes = [
  ["matrices", [2, 3], [3, 4]],
  ["batch times matrix", [2, 2, 3], [3, 2]],
  ["matrix times batch", [2, 3], [2, 3, 2]],
  ["batches", [2, 2, 3], [2, 3, 2]],
  ["broadcast batches", [2, 1, 2, 3], [2, 3, 2]],
  ["batch of one", [1, 2, 3], [2, 3, 2]],
] as const;

const gemmCases = [false, true].flatMap((transA) =>
  [false, true].flatMap((transB) =>
    ([undefined, [], [4], [2, 4], [2, 1]] as const).map((c) =>
      gradientCase(
        `${transA ? "aᵀ" : "a"} ${transB ? "bᵀ" : "b"}${c ? ` + c [${c}]` : ""}`,
        [any(...(transA ? [3, 2] : [2, 3])), any(...(transB ? [4, 3] : [3, 4])), ...(c ? [any(...c)] : [])],
        (a, b, bias) => op.gemm(a, b, { c: bias, alpha: 0.5, beta: bias ? 3 : 1, transA, transB }),
      ),
    ),
  ),
);

type ConvCase = readonly [
  name: string,
  image: readonly number[],
  kernel: readonly number[],
  options: ConvOptions & { readonly hasBias?: boolean },
];
const convCases: readonly ConvCase[] = [
  ["one channel", [1, 1, 4, 4], [1, 1, 2, 2], {}],
  ["channels, batch and bias", [2, 2, 3, 4], [3, 2, 2, 2], { hasBias: true }],
  [
    "a patch embedding whose stride leaves a rest",
    [1, 2, 8, 7],
    [2, 2, 3, 3],
    { strides: [3, 2], pads: [1, 1, 1, 1], hasBias: true },
  ],
  ["7 by 7 with a stride of 4", [1, 1, 10, 9], [2, 1, 7, 7], { strides: [4, 4], pads: [3, 3, 3, 3] }],
  ["one kernel per channel", [2, 3, 4, 3], [3, 1, 3, 3], { group: 3, pads: [1, 1, 1, 1], hasBias: true }],
  ["two groups and a stride", [2, 4, 5, 4], [6, 2, 3, 2], { group: 2, strides: [2, 2], pads: [0, 1, 1, 0] }],
  ["dilation", [1, 2, 6, 7], [2, 2, 2, 3], { dilations: [2, 3], pads: [1, 2, 0, 1] }],
  [
    "dilation, stride and groups",
    [2, 2, 9, 8],
    [4, 1, 3, 2],
    { group: 2, dilations: [2, 3], strides: [3, 2], pads: [2, 0, 1, 3] },
  ],
  ["1 by 1", [2, 3, 2, 2], [2, 3, 1, 1], { hasBias: true }],
  ["1 by 1 with zeros around", [1, 2, 3, 2], [2, 2, 1, 1], { pads: [1, 0, 0, 1] }],
  ["a kernel as large as the image", [2, 2, 3, 2], [2, 2, 3, 2], {}],
];

type ConvTransposeCase = readonly [
  name: string,
  image: readonly number[],
  kernel: readonly number[],
  options: Parameters<typeof op.convTranspose>[2],
];
const convTransposeCases: readonly ConvTransposeCase[] = [
  ["plain", [1, 2, 3, 2], [2, 3, 2, 2], {}],
  [
    "strides, pads and output padding",
    [2, 2, 3, 2],
    [2, 1, 3, 3],
    { strides: [3, 2], pads: [1, 0, 1, 2], outputPadding: [2, 1] },
  ],
  ["groups of two inputs and one output", [2, 4, 3, 2], [4, 1, 2, 3], { group: 2 }],
  ["groups and dilation", [1, 4, 2, 3], [4, 1, 2, 2], { group: 2, dilations: [3, 2], strides: [2, 1] }],
];

const repeated = int64([2, 3], [1, 4, 1, 0, 1, 4]);

/**
 * At least one graph for every operator. The type is what makes the list complete: an operator that is added without
 * a case does not compile.
 */
export const gradientCases: { readonly [Op in OpName]: readonly GradientCase[] } = {
  Add: binary(op.add),
  Sub: binary(op.sub),
  Mul: binary(op.mul),
  Div: binary(op.div, any, signed),
  Pow: [
    ...binary(op.pow, positive, any),
    gradientCase("a square of any sign", [signed(2, 3)], (x) => op.pow(x, 2)),
    gradientCase("an inverse square root", [positive(2, 3)], (x) => op.pow(x, -0.5)),
  ],
  Neg: unary(op.neg),
  Sqrt: unary(op.sqrt, positive),
  Exp: unary(op.exp),
  Log: unary(op.log, positive),
  Reciprocal: unary(op.reciprocal, signed),
  Sigmoid: unary(op.sigmoid),
  Tanh: unary(op.tanh),
  Erf: unary(op.erf),
  Relu: unary(op.relu, signed),
  Cos: unary(op.cos),
  Sin: unary(op.sin),
  Identity: unary(op.identity),
  Boundary: [gradientCase("of a block", [any(2, 3)], (x) => op.boundary(op.boundary(x, 1)))],
  After: [gradientCase("of another value", [any(2, 3), any(4)], (x, y) => op.after(x, y))],
  Abs: unary(op.abs, signed),
  Gelu: [...unary((x) => op.gelu(x)), ...unary((x) => op.gelu(x, "tanh"), any, "tanh form, ")],
  QuickGelu: [
    ...unary((x) => op.quickGelu(x)),
    ...unary((x) => op.quickGelu(x, 1.702), any, "alpha 1.702, "),
  ],
  Cast: [
    // Through the other float type and back, so that the sum stays in the type of the test.
    gradientCase("between floats", [any(2, 3)], (x) =>
      op.cast(op.cast(x, x.dtype === "float32" ? "float64" : "float32"), x.dtype),
    ),
    gradientCase("to whole numbers", [between(0.2, 0.8)(2, 3)], (x) => op.cast(op.cast(x, "int64"), x.dtype)),
  ],
  MatMul: matmulShapes.map(([name, a, b]) => gradientCase(name, [any(...a), any(...b)], op.matmul)),
  Gemm: gemmCases,
  QuantizedMatMul: [true, false].map((transB) =>
    gradientCase(
      transB ? "forward" : "backward",
      [any(3, transB ? 4 : 2), int8([2, 4], [127, -3, 0, 64, -127, 5, 90, 1]), positive(2)],
      (x, codes, scales) => op.quantizedMatMul(x, codes, scales, { transB }),
      [0],
    ),
  ),
  QuantizeLinear: [
    gradientCase("between the steps", [between(0.2, 0.4)(2, 3)], (x) =>
      op.cast(op.quantizeLinear(x, scalar(1, x.dtype), scalar(128, "uint8")), x.dtype),
    ),
  ],
  DequantizeLinear: [
    gradientCase("rows", [int8([2, 3], [1, -2, 3, 4, -5, 6]), positive(2)], (codes, scale) =>
      op.dequantizeLinear(codes, scale, 0),
    ),
    gradientCase("columns", [int8([2, 3], [1, -2, 3, 4, -5, 6]), positive(3)], (codes, scale) =>
      op.dequantizeLinear(codes, scale, -1),
    ),
  ],
  MatMulNBits: [
    gradientCase("of nothing that is trained", [any(2, 3)], (x) => {
      const row = op.cast(op.range(96, 128), x.dtype); // its codes are these numbers
      const codes = op.cast(
        constantOf(
          Array.from({ length: 48 }, (_, i) => (i * 37) % 256),
          [3, 1, 16],
          "int32",
        ),
        "uint8",
      );
      const scales = constantOf([2 ** -12, 2 ** -13, 2 ** -11], [3, 1], "float32");
      return op.add(x, op.matMulNBits(op.reshape(row, [1, 32]), codes, scales));
    }),
  ],
  QGemm: [false, true].map((transB) =>
    gradientCase(
      transB ? "b transposed" : "b as it is",
      [any(2, 2), int8([2, 2], [1, -2, 3, 4])],
      (x, b) => {
        const a = { codes: op.cast(constantOf([130, 3, 128, 255], [2, 2], "int32"), "uint8") };
        const zero = scalar(0, "int8");
        return op.add(
          x,
          op.qGemm(
            { ...a, scale: scalar(0.5), zeroPoint: scalar(128, "uint8") },
            { codes: b, scale: scalar(0.25), zeroPoint: zero },
            { transB },
          ),
        );
      },
      [0],
    ),
  ),
  Softmax: [
    gradientCase("last axis", [any(2, 4)], (x) => op.softmax(x)),
    gradientCase("middle axis", [any(2, 3, 2)], (x) => op.softmax(x, 1)),
    gradientCase("first axis", [any(3, 2)], (x) => op.softmax(x, 0)),
  ],
  LogSoftmax: [
    gradientCase("last axis", [any(2, 4)], (x) => op.logSoftmax(x)),
    gradientCase("first axis", [any(3, 2)], (x) => op.logSoftmax(x, 0)),
    gradientCase("picked elements", [any(3, 4)], (x) =>
      op.gatherElements(op.logSoftmax(x), constantOf([2, 0, 3], [3, 1], "int64"), 1),
    ),
  ],
  Conv: convCases.map(([name, image, kernel, { hasBias, ...options }]) =>
    gradientCase(name, [any(...image), any(...kernel), ...(hasBias ? [any(kernel[0]!)] : [])], (x, w, bias) =>
      op.conv(x, w, { ...options, bias }),
    ),
  ),
  ConvTranspose: convTransposeCases.map(([name, image, kernel, options]) =>
    gradientCase(name, [any(...image), any(...kernel)], (x, w) => op.convTranspose(x, w, options)),
  ),
  Reshape: [
    gradientCase("flat", [any(2, 3)], (x) => op.reshape(x, [-1])),
    gradientCase("more axes", [any(2, 6)], (x) => op.reshape(x, [2, 1, 3, 2])),
    gradientCase("to a scalar", [any(1, 1)], (x) => op.reshape(x, [])),
  ],
  Transpose: [
    gradientCase("matrix", [any(2, 3)], op.transposeLast),
    gradientCase("a cycle", [any(2, 3, 2)], (x) => op.transpose(x, [2, 0, 1])),
    gradientCase("heads", [any(2, 2, 3, 2)], (x) => op.transpose(x, [0, 2, 1, 3])),
  ],
  Expand: [
    gradientCase("a scalar", [any()], (x) => op.expand(x, [2, 3])),
    gradientCase("an inner axis", [any(2, 1, 3)], (x) => op.expand(x, [2, 4, 3])),
    gradientCase("new leading axes", [any(3, 1)], (x) => op.expand(x, [2, 3, 2])),
  ],
  Concat: [
    gradientCase("rows", [any(2, 3), any(1, 3)], (a, b) => op.concat([a, b], 0)),
    gradientCase("three parts of the last axis", [any(2, 1), any(2, 2), any(2, 3)], (...parts) =>
      op.concat(parts, -1),
    ),
    gradientCase("one value twice", [any(2, 2)], (x) => op.concat([x, x], 1)),
  ],
  Slice: [
    gradientCase("inside", [any(2, 5)], (x) => op.slice(x, 1, 1, 4)),
    gradientCase("first rows", [any(3, 2)], (x) => op.slice(x, 0, 0, 2)),
    gradientCase("last columns", [any(3, 4)], (x) => op.slice(x, -1, 2, 4)),
  ],
  Pad: [
    gradientCase("both sides", [any(2, 3)], (x) => op.pad(x, 1, 2, 1)),
    gradientCase("before only", [any(2, 3)], (x) => op.pad(x, 0, 1, 0)),
    gradientCase("nothing", [any(2, 3)], (x) => op.pad(x, 0, 0, 0)),
  ],
  Range: [
    gradientCase("times an input", [any(3)], (x) => op.mul(op.range(0, 3, x.dtype), x)),
    gradientCase("between computed bounds", [any()], (x) =>
      op.apply("Range", [op.mul(x, 0), op.add(op.mul(x, 0), 3)], { length: 3 }),
    ),
  ],
  ReduceSum: reduction(op.reduceSum),
  ReduceMean: reduction(op.reduceMean),
  ReduceMax: reduction(op.reduceMax, distinct),
  ReduceLogSumExp: reduction(op.reduceLogSumExp),
  Gather: [
    gradientCase("repeated rows", [any(5, 2), repeated], (x, i) => op.gather(x, i)),
    gradientCase("middle axis, negative", [any(2, 5, 2), int64([3], [-1, 0, 4])], (x, i) =>
      op.gather(x, i, 1),
    ),
    gradientCase("last axis, two axes of indices", [any(2, 5), repeated], (x, i) => op.gather(x, i, -1)),
    gradientCase("last of three axes", [any(2, 3, 4), int64([2], [3, 1])], (x, i) => op.gather(x, i, 2)),
    gradientCase("a scalar index", [any(4, 3), int64([], [2])], (x, i) => op.gather(x, i)),
    gradientCase("of a vector", [any(5), repeated], (x, i) => op.gather(x, i)),
  ],
  GatherElements: [
    gradientCase("repeated", [any(2, 4), int64([2, 3], [0, 0, 3, 2, -1, 1])], (x, i) =>
      op.gatherElements(x, i, 1),
    ),
    gradientCase("first axis", [any(4, 2), int64([3, 2], [0, 3, 0, 1, 2, 3])], (x, i) =>
      op.gatherElements(x, i, 0),
    ),
  ],
  ScatterElements: [
    gradientCase(
      "repeated",
      [any(2, 4), int64([2, 3], [0, 0, 3, 2, -1, 1]), any(2, 3)],
      (x, i, u) => op.scatterElementsAdd(x, i, u, 1),
      [0, 2],
    ),
  ],
  ScatterND: [
    gradientCase("repeated rows", [any(5, 2), repeated, any(2, 3, 2)], (x, i, u) =>
      op.scatterRowsAdd(x, i, u),
    ),
    gradientCase("rows of two axes", [any(3, 2, 2), int64([2], [2, -1]), any(2, 2, 2)], (x, i, u) =>
      op.scatterRowsAdd(x, i, u),
    ),
    gradientCase("of a vector", [any(5), int64([3], [0, 4, 0]), any(3)], (x, i, u) =>
      op.scatterRowsAdd(x, i, u),
    ),
  ],
  Where: [
    gradientCase("same shape", [truth([2, 3], [1, 0, 0, 1, 1, 0]), any(2, 3), any(2, 3)], op.where),
    gradientCase("a scalar otherwise", [truth([2, 3], [1, 0, 0, 1, 1, 0]), any(2, 3), any()], op.where),
    gradientCase("a broadcast condition", [truth([1, 3], [1, 0, 1]), any(2, 3), any(2, 3)], op.where),
    gradientCase("everything broadcast", [truth([2, 1, 1], [1, 0]), any(3, 1), any(4)], op.where),
  ],
  Equal: comparison(op.equal),
  Less: comparison(op.less),
  LessOrEqual: comparison(op.lessOrEqual),
  Greater: comparison(op.greater),
  GreaterOrEqual: comparison(op.greaterOrEqual),
  And: logic(op.and),
  Or: logic(op.or),
  Not: [gradientCase("of a comparison", [any(2, 3)], (x) => op.cast(op.not(op.less(x, 0)), x.dtype))],
  BitwiseXor: [
    gradientCase("of codes", [any(2, 3)], (x) =>
      op.add(x, op.cast(op.bitwiseXor(constantOf([1, 2, 3], [3], "int32"), scalar(6, "int32")), x.dtype)),
    ),
  ],
  SimplifiedLayerNormalization: [
    gradientCase("hidden states", [any(2, 2, 4), any(4)], (x, w) => op.rmsNorm(x, w, 1e-5)),
    gradientCase("small values, where epsilon counts", [between(-0.1, 0.1)(2, 3), any(3)], (x, w) =>
      op.rmsNorm(x, w, 1e-2),
    ),
  ],
  LayerNormalization: [
    gradientCase("hidden states", [any(2, 2, 4), any(4), any(4)], (x, w, b) => op.layerNorm(x, w, b, 1e-5)),
    gradientCase("without bias", [any(3, 5), any(5)], (x, w) => op.layerNorm(x, w, undefined, 1e-5)),
    gradientCase(
      "small values, where epsilon counts",
      [between(-0.1, 0.1)(2, 3), any(3), any(3)],
      (x, w, b) => op.layerNorm(x, w, b, 1e-2),
    ),
  ],
  RotaryEmbedding: [
    gradientCase(
      "positions in any order",
      [any(2, 2, 3, 4), int64([2, 3], [0, 1, 2, 4, 3, 0]), any(5, 2), any(5, 2)],
      op.rotaryEmbedding,
      [0],
    ),
  ],
};

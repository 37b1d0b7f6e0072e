import { GraphError } from "../errors.ts";
import { accumulate, isZeros } from "./accumulate.ts";
import { type Dim, dimAdd, dimProduct, dimSubtract, type Shape } from "./dim.ts";
import * as op from "./ops/build.ts";
import { isFloat } from "./ops/infer-checks.ts";
import type { AttributesOf, InputsOf, OpName } from "./ops/signatures.ts";
import { convRule, convTransposeRule } from "./rules/convolution.ts";
import { layerNormRule, rmsRule } from "./rules/norms.ts";
import { type Cotangent, type Rule, type RuleFor, unsupported, zero } from "./rules/rule.ts";
import { dimValue, type Node, scalar, type Value } from "./value.ts";

const allZero: Rule<readonly (Value | undefined)[], object> = ({ inputs }) => inputs.map(() => zero);

/** Zeros of the dtype of `x`. */
const zerosLike = (x: Value, shape: Shape = x.shape): Value => op.full(0, shape, x.dtype);

/** The reduced axes of `reduced` as axes of size 1, so that it broadcasts against the input of the reduction. */
const keepAxes = (reduced: Value, axes: readonly number[], shape: Shape): Value =>
  op.reshape(
    reduced,
    shape.map((dim, i) => (axes.includes(i) ? 1 : dim)),
  );

/** Sends axis `axis` to the front. */
const toFront = (rank: number, axis: number): number[] => [
  axis,
  ...Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis),
];
const inverse = (perm: readonly number[]): number[] => perm.map((_, i) => perm.indexOf(i));

// y = op(a) op(b), so da = dy op(b)ᵀ and db = op(a)ᵀ dy, each transposed back where the operand was.
const gemmRule: RuleFor<"Gemm"> = ({ inputs: [a, b, c], attributes, dy }) => {
  const { alpha, beta, transA, transB } = attributes;
  const da = transA
    ? op.gemm(b, dy, { alpha, transA: transB, transB: true })
    : op.gemm(dy, b, { alpha, transB: !transB });
  const db = transB
    ? op.gemm(dy, a, { alpha, transA: true, transB: transA })
    : op.gemm(a, dy, { alpha, transA: !transA });
  return [da, db, c ? (beta === 1 ? dy : op.mul(dy, beta)) : zero];
};

// y = a b, so da = dy bᵀ and db = aᵀ dy; batch axes that were broadcast are summed by the walk.
// With a two-dimensional b the sum over the batch is the product itself: aᵀ dy over all rows at once.
const matmulRule: RuleFor<"MatMul"> = ({ inputs: [a, b], dy }) => {
  const da = op.matmul(dy, op.transposeLast(b));
  if (b.rank > 2 || a.rank === 2) return [da, op.matmul(op.transposeLast(a), dy)];
  const rows = (x: Value): Value => op.reshape(x, [dimProduct(x.shape.slice(0, -1)), x.shape.at(-1)!]);
  return [da, op.gemm(rows(a), rows(dy), { transA: true })];
};

/** `rows` [indices…, others…], zero where the index is `index`. */
function withoutIndex(rows: Value, indices: Value, index: number): Value {
  const isIndex = op.equal(indices, index);
  const others = rows.rank - indices.rank;
  const mask = op.reshape(isIndex, [...indices.shape, ...Array<number>(others).fill(1)]);
  return op.where(mask, scalar(0, rows.dtype), rows);
}

// Rows are gathered, so rows of dy are added where they came from.
const gatherRule: RuleFor<"Gather"> = ({
  inputs: [data, indices],
  attributes: { axis, paddingIndex },
  dy,
}) => {
  const indexAxes = indices.shape.map((_, i) => axis + i);
  const others = dy.shape.map((_, i) => i).filter((i) => !indexAxes.includes(i));
  const all = axis === 0 ? dy : op.transpose(dy, [...indexAxes, ...others]);
  const rows = paddingIndex === undefined ? all : withoutIndex(all, indices, paddingIndex);
  const perm = toFront(data.rank, axis);
  const sums = op.scatterRowsAdd(
    zerosLike(
      data,
      perm.map((i) => data.shape[i]!),
    ),
    indices,
    rows,
  );
  return [axis === 0 ? sums : op.transpose(sums, inverse(perm)), zero];
};

// y = gelu x = x Φ(x), so dx = dy (Φ(x) + x φ(x)); in the tanh form, t = tanh u, u = √(2/π) (x + 0.044715 x³):
// dx = dy ½ (1 + t + x (1 - t²) u')
const geluRule: RuleFor<"Gelu"> = ({ inputs: [x], attributes: { approximate }, dy }) => {
  if (approximate === "none") {
    const cdf = op.mul(op.add(op.erf(op.mul(x, Math.SQRT1_2)), 1), 0.5);
    const density = op.mul(op.exp(op.mul(op.mul(x, x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    return [op.mul(dy, op.add(cdf, op.mul(x, density)))];
  }
  const root = Math.sqrt(2 / Math.PI);
  const square = op.mul(x, x);
  const t = op.tanh(op.mul(op.mul(x, op.add(op.mul(square, 0.044715), 1)), root));
  const slope = op.add(op.mul(square, 3 * 0.044715 * root), root);
  const tail = op.mul(op.mul(x, op.sub(1, op.mul(t, t))), slope);
  return [op.mul(dy, op.mul(op.add(op.add(t, 1), tail), 0.5))];
};

// y = x s with s = σ(αx), so dx = dy (s + α y (1 - s))
const quickGeluRule: RuleFor<"QuickGelu"> = ({ inputs: [x], attributes: { alpha }, y, dy }) => {
  const scaled = (value: Value): Value => (alpha === 1 ? value : op.mul(value, alpha));
  const s = op.sigmoid(scaled(x));
  return [op.mul(dy, op.add(s, scaled(op.mul(y, op.sub(1, s)))))];
};

/**
 * Σ dy along an axis, kept as 1. Where dy is a few values put into zeros, as the cotangent of picked elements is, only
 * these are summed.
 */
function sumAlong(dy: Value, axis: number): Value {
  if (dy.source.kind === "node" && dy.source.node.op === "ScatterElements") {
    const { inputs, attributes } = dy.source.node as unknown as Node<"ScatterElements">;
    if (attributes.axis === axis && isZeros(inputs[0])) return op.reduceSum(inputs[2], { axes: [axis] });
  }
  return op.reduceSum(dy, { axes: [axis] });
}

// y = x - ln Σ exp x, so dx = dy - exp(y) Σ dy
const logSoftmaxRule: RuleFor<"LogSoftmax"> = ({ attributes: { axis }, y, dy }) => [
  accumulate(op.mul(op.exp(y), op.neg(sumAlong(dy, axis))), dy),
];

/**
 * One rule per operator: cotangent of the output -> cotangents of the inputs, in input order.
 * An operator without a rule does not compile. Rules are built from forward operators, so whatever runs forward runs
 * backward, and may return a cotangent of the broadcast shape: the walk sums it to the input's shape.
 */
export const gradientRules: { readonly [Op in OpName]: Rule<InputsOf<Op>, AttributesOf<Op>> } = {
  Add: ({ dy }) => [dy, dy],
  Sub: ({ dy }) => [dy, op.neg(dy)],
  Mul: ({ inputs: [a, b], dy }) => [op.mul(dy, b), op.mul(dy, a)],
  // y = a / b, so da = dy / b and db = -dy y / b
  Div: ({ inputs: [, b], y, dy }) => [op.div(dy, b), op.neg(op.div(op.mul(dy, y), b))],
  // y = aᵇ, so da = dy b aᵇ⁻¹ and db = dy y ln a
  Pow: ({ inputs: [a, b], y, dy }) => [
    op.mul(dy, op.mul(b, op.pow(a, op.sub(b, 1)))),
    op.mul(dy, op.mul(y, op.log(a))),
  ],
  Neg: ({ dy }) => [op.neg(dy)],
  // y = √x, so dx = dy / 2y
  Sqrt: ({ y, dy }) => [op.div(op.mul(dy, 0.5), y)],
  Exp: ({ y, dy }) => [op.mul(dy, y)],
  Log: ({ inputs: [x], dy }) => [op.div(dy, x)],
  // y = 1/x, so dx = -dy y²
  Reciprocal: ({ y, dy }) => [op.neg(op.mul(dy, op.mul(y, y)))],
  // y = σ(x), so dx = dy y (1 - y)
  Sigmoid: ({ y, dy }) => [op.mul(dy, op.mul(y, op.sub(1, y)))],
  // y = tanh x, so dx = dy (1 - y²)
  Tanh: ({ y, dy }) => [op.mul(dy, op.sub(1, op.mul(y, y)))],
  // y = erf x, so dx = dy 2/√π exp(-x²)
  Erf: ({ inputs: [x], dy }) => [op.mul(dy, op.mul(op.exp(op.neg(op.mul(x, x))), 2 / Math.sqrt(Math.PI)))],
  Relu: ({ inputs: [x], dy }) => [op.where(op.greater(x, 0), dy, 0)],
  Cos: ({ inputs: [x], dy }) => [op.neg(op.mul(dy, op.sin(x)))],
  Sin: ({ inputs: [x], dy }) => [op.mul(dy, op.cos(x))],
  Identity: ({ dy }) => [dy],
  // y = |x|, so dx = dy sign x
  Abs: ({ inputs: [x], dy }) => [op.where(op.greater(x, 0), dy, op.where(op.less(x, 0), op.neg(dy), 0))],
  Gelu: geluRule,
  QuickGelu: quickGeluRule,
  Cast: ({ inputs: [x], dy }) => [isFloat(x.dtype) ? op.cast(dy, x.dtype) : zero],

  MatMul: matmulRule,
  Gemm: gemmRule,
  // y = x Ŵᵀ, so dx = dy Ŵ: the derivative in exact arithmetic, whatever rounds x and dy on a device. Nothing trains Ŵ.
  QuantizedMatMul: ({ inputs: [, codes, scales], attributes: { transB, rounded, roundedGradient }, dy }) => [
    op.quantizedMatMul(dy, codes, scales, {
      transB: !transB,
      rounded: roundedGradient,
      roundedGradient: rounded,
    }),
    zero,
    unsupported,
  ],
  // Steps: rewriting makes them of operators that have a derivative.
  QuantizeLinear: () => [unsupported, unsupported, zero],
  QGemm: () => [zero, unsupported, zero, zero, unsupported, zero],
  MatMulNBits: () => [unsupported, zero, unsupported],
  DequantizeLinear: ({ inputs: [codes, scale], attributes: { axis, blockSize }, dy }) => [
    zero,
    blockSize !== undefined
      ? unsupported
      : op.reduceSum(op.mul(dy, op.cast(codes, scale.dtype)), {
          axes: codes.shape.flatMap((_, i) => (i === axis ? [] : [i])),
          keepdims: false,
        }),
  ],
  // y = softmax x, so dx = y (dy - Σ dy y)
  Softmax: ({ y, dy, attributes: { axis } }) => [
    op.mul(y, op.sub(dy, op.reduceSum(op.mul(dy, y), { axes: [axis] }))),
  ],

  LogSoftmax: logSoftmaxRule,

  Conv: convRule,
  ConvTranspose: convTransposeRule,

  After: ({ dy }) => [dy, zero],
  Boundary: ({ dy }) => [dy],
  Reshape: ({ inputs: [x], dy }) => [op.reshape(dy, x.shape)],
  Transpose: ({ attributes: { perm }, dy }) => [op.transpose(dy, inverse(perm))],
  Expand: ({ dy }) => [dy],
  Concat: ({ inputs, attributes: { axis }, dy }) => {
    let end: Dim = 0;
    return inputs.map((x) => {
      const start = end;
      end = dimAdd(start, x.shape[axis]!);
      return op.slice(dy, axis, start, end);
    });
  },
  Slice: ({ inputs: [x], attributes: { axis, start, end }, dy }) => [
    op.pad(dy, axis, start, dimSubtract(x.shape[axis]!, end)),
  ],
  Pad: ({ inputs: [x], attributes: { axis, before }, dy }) => [
    op.slice(dy, axis, before, dimAdd(before, x.shape[axis]!)),
  ],
  Range: allZero,

  ReduceSum: ({ inputs: [x], attributes: { axes }, dy }) => [op.expand(keepAxes(dy, axes, x.shape), x.shape)],
  ReduceMean: ({ inputs: [x], attributes: { axes }, dy }) => {
    const count = dimProduct(axes.map((axis) => x.shape[axis]!));
    return [op.expand(op.div(keepAxes(dy, axes, x.shape), op.cast(dimValue(count), dy.dtype)), x.shape)];
  },
  // The cotangent is shared evenly by all elements that reach the maximum, as torch.amax does.
  ReduceMax: ({ inputs: [x], attributes: { axes }, y, dy }) => {
    const hits = op.cast(op.equal(x, keepAxes(y, axes, x.shape)), dy.dtype);
    return [op.mul(op.div(keepAxes(dy, axes, x.shape), op.reduceSum(hits, { axes })), hits)];
  },
  // y = ln Σ exp x, so dx = dy exp(x - y)
  ReduceLogSumExp: ({ inputs: [x], attributes: { axes }, y, dy }) => [
    op.mul(keepAxes(dy, axes, x.shape), op.exp(op.sub(x, keepAxes(y, axes, x.shape)))),
  ],

  Gather: gatherRule,
  GatherElements: ({ inputs: [data, indices], attributes: { axis }, dy }) => [
    op.scatterElementsAdd(zerosLike(data), indices, dy, axis),
    zero,
  ],
  ScatterElements: ({ inputs: [, indices], attributes: { axis }, dy }) => [
    dy,
    zero,
    op.gatherElements(dy, indices, axis),
  ],
  ScatterND: ({ inputs: [, indices], dy }) => [dy, zero, op.gather(dy, op.squeeze(indices, -1))],

  Where: ({ inputs: [condition], dy }) => [zero, op.where(condition, dy, 0), op.where(condition, 0, dy)],
  Equal: allZero,
  Less: allZero,
  LessOrEqual: allZero,
  Greater: allZero,
  GreaterOrEqual: allZero,
  And: allZero,
  Or: allZero,
  Not: allZero,
  BitwiseXor: allZero,

  SimplifiedLayerNormalization: rmsRule,
  LayerNormalization: layerNormRule,
  // A rotation's transpose turns the other way. The angles come from positions, which nothing trains.
  RotaryEmbedding: ({ inputs: [, positions, cos, sin], dy }) => [
    op.rotaryEmbedding(dy, positions, cos, op.neg(sin)),
    zero,
    unsupported,
    unsupported,
  ],
};

/**
 * Cotangents of a node's inputs for the cotangent `dy` of its output.
 * @throws GraphError where a rule returns another number of cotangents than there are inputs.
 */
export function applyRule(node: Node, y: Value, dy: Value): readonly Cotangent[] {
  const rule = gradientRules[node.op] as Rule<readonly (Value | undefined)[], object>;
  const cotangents = rule({ inputs: node.inputs, attributes: node.attributes, y, dy });
  if (cotangents.length !== node.inputs.length)
    throw new GraphError(
      `The gradient rule of ${node.op} returned ${cotangents.length} cotangents for ${node.inputs.length} inputs.`,
      { code: "gradient-rule" },
    );
  return cotangents;
}

import type { DType } from "../../tensor/index.ts";
import {
  type Dim,
  dimDivide,
  dimEquals,
  dimProduct,
  dimSubtract,
  formatShape,
  type Shape,
  shapeEquals,
} from "../dim.ts";
import { dimValue, type Node, scalar, Value } from "../value.ts";
import { inference } from "./infer.ts";
import type { AttributesOf, ConvAttributes, InputsOf, OpName } from "./signatures.ts";

/** Applies an operator. @throws GraphError if shapes or dtypes do not fit. */
export function apply<Op extends OpName>(op: Op, inputs: InputsOf<Op>, attributes: AttributesOf<Op>): Value {
  const { dtype, shape } = inference[op](inputs as never, attributes as never);
  const outputs: Value[] = [];
  const node: Node<Op> = { op, inputs, attributes, outputs };
  outputs.push(new Value(dtype, shape, { kind: "node", node: node as unknown as Node, index: 0 }));
  return outputs[0]!;
}

type Operand = Value | number;

/** A number takes the dtype of the other operand. */
function operands(a: Operand, b: Operand): readonly [Value, Value] {
  const dtype: DType = typeof a !== "number" ? a.dtype : typeof b !== "number" ? b.dtype : "float32";
  return [typeof a === "number" ? scalar(a, dtype) : a, typeof b === "number" ? scalar(b, dtype) : b];
}

type BinaryOp =
  | "Add"
  | "Sub"
  | "Mul"
  | "Div"
  | "Pow"
  | "Equal"
  | "Less"
  | "LessOrEqual"
  | "Greater"
  | "GreaterOrEqual"
  | "And"
  | "Or"
  | "BitwiseXor";
const binary =
  (op: BinaryOp) =>
  (a: Operand, b: Operand): Value =>
    apply(op, operands(a, b), {});

type UnaryOp =
  | "Neg"
  | "Sqrt"
  | "Exp"
  | "Log"
  | "Reciprocal"
  | "Sigmoid"
  | "Tanh"
  | "Erf"
  | "Relu"
  | "Cos"
  | "Sin"
  | "Identity"
  | "Abs"
  | "Not";
const unary =
  (op: UnaryOp) =>
  (x: Value): Value =>
    apply(op, [x], {});

/** Axes may be counted from the end; the default reduces the last axis and keeps it as 1. No axes: x itself. */
type ReduceOptions = { axes?: readonly number[]; keepdims?: boolean };
const reduce =
  (op: "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceLogSumExp") =>
  (x: Value, { axes = [-1], keepdims = true }: ReduceOptions = {}): Value =>
    axes.length === 0 ? x : apply(op, [x], { axes: axes.map((axis) => fromEnd(axis, x)), keepdims });

const fromEnd = (axis: number, x: Value): number => (axis < 0 ? axis + x.rank : axis);

export const add = binary("Add");
export const sub = binary("Sub");
export const mul = binary("Mul");
export const div = binary("Div");
export const pow = binary("Pow");
export const equal = binary("Equal");
export const less = binary("Less");
export const lessOrEqual = binary("LessOrEqual");
export const greater = binary("Greater");
export const greaterOrEqual = binary("GreaterOrEqual");
export const and = binary("And");
export const or = binary("Or");
export const bitwiseXor = binary("BitwiseXor");

export const neg = unary("Neg");
export const sqrt = unary("Sqrt");
export const exp = unary("Exp");
export const log = unary("Log");
export const reciprocal = unary("Reciprocal");
export const sigmoid = unary("Sigmoid");
export const tanh = unary("Tanh");
export const erf = unary("Erf");
export const relu = unary("Relu");
export const cos = unary("Cos");
export const sin = unary("Sin");
export const identity = unary("Identity");
export const abs = unary("Abs");
export const not = unary("Not");

export const reduceSum = reduce("ReduceSum");
export const reduceMean = reduce("ReduceMean");
export const reduceMax = reduce("ReduceMax");
export const reduceLogSumExp = reduce("ReduceLogSumExp");

export const gelu = (x: Value, approximate: "none" | "tanh" = "none"): Value =>
  apply("Gelu", [x], { approximate });

/** x, as it enters a block that is computed again, or leaves one. */
export const boundary = (x: Value, block?: number): Value =>
  apply("Boundary", [x], block === undefined ? {} : { block });

/** x, computed no sooner than all of `earlier`. */
export const after = (x: Value, ...earlier: readonly Value[]): Value =>
  earlier.reduce((late, value) => apply("After", [late, value], {}), x);

/** The same values in another dtype; the value itself if it has it already. */
export const cast = (x: Value, to: DType): Value => (x.dtype === to ? x : apply("Cast", [x], { to }));

/** a b over the last two axes, the others broadcast. */
export const matmul = (a: Value, b: Value): Value => apply("MatMul", [a, b], {});

export type GemmOptions = {
  c?: Value | undefined;
  alpha?: number;
  beta?: number;
  transA?: boolean;
  transB?: boolean;
};

/** alpha · op(a) op(b) + beta · c, two-dimensional. */
export const gemm = (
  a: Value,
  b: Value,
  { c, alpha = 1, beta = 1, transA = false, transB = false }: GemmOptions = {},
): Value => apply("Gemm", [a, b, c], { alpha, beta, transA, transB });

/** x Ŵᵀ (transB) or x Ŵ for a frozen weight Ŵ in codes; see the operator. */
export const quantizedMatMul = (
  x: Value,
  codes: Value,
  scales: Value,
  {
    transB,
    rounded = true,
    roundedGradient = true,
  }: { transB: boolean; rounded?: boolean; roundedGradient?: boolean },
): Value => apply("QuantizedMatMul", [x, codes, scales], { transB, rounded, roundedGradient });

/** The weight [out, in] that codes stand for. */
export const dequantizedWeight = (codes: Value, scales: Value): Value =>
  codes.dtype === "int8"
    ? dequantizeLinear(codes, scales, 0)
    : apply("DequantizeLinear", [codes, scales], {
        axis: 1,
        blockSize: (2 * (codes.shape[1] as number)) / (scales.shape[1] as number),
      });

/** Nearest uint8 to x / scale + zeroPoint. */
export const quantizeLinear = (x: Value, scale: Value, zeroPoint: Value): Value =>
  apply("QuantizeLinear", [x, scale, zeroPoint], {});

/** scale · codes, the scale along `axis`. */
export const dequantizeLinear = (codes: Value, scale: Value, axis: number): Value =>
  apply("DequantizeLinear", [codes, scale], { axis: fromEnd(axis, codes) });

type Quantized = { readonly codes: Value; readonly scale: Value; readonly zeroPoint: Value };

/** Product of two quantised matrices, as float32. */
export const qGemm = (a: Quantized, b: Quantized, { transB = false } = {}): Value =>
  apply("QGemm", [a.codes, a.scale, a.zeroPoint, b.codes, b.scale, b.zeroPoint], { transB });

/** Product with a transposed weight in blocks of 4 bits. */
export const matMulNBits = (x: Value, codes: Value, scales: Value): Value =>
  apply("MatMulNBits", [x, codes, scales], {});

/** x σ(alpha x): SiLU with alpha 1, as usual. */
export const quickGelu = (x: Value, alpha = 1): Value => apply("QuickGelu", [x], { alpha });

/** x - ln Σ exp x along an axis. */
export const logSoftmax = (x: Value, axis = -1): Value =>
  apply("LogSoftmax", [x], { axis: fromEnd(axis, x) });

export const softmax = (x: Value, axis = -1): Value => apply("Softmax", [x], { axis: fromEnd(axis, x) });

export type ConvOptions = Partial<ConvAttributes> & { bias?: Value | undefined };

/** x [batch, in, height, width] correlated with w [out, in / group, rows, columns]. */
export const conv = (
  x: Value,
  w: Value,
  { bias, strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], group = 1 }: ConvOptions = {},
): Value => apply("Conv", [x, w, bias], { strides, pads, dilations, group });

/** The transpose of `conv` in x. Shapes: x [batch, in, height, width], w [in, out / group, rows, columns]. */
export const convTranspose = (
  x: Value,
  w: Value,
  {
    strides = [1, 1],
    pads = [0, 0, 0, 0],
    dilations = [1, 1],
    group = 1,
    outputPadding = [0, 0],
  }: Partial<AttributesOf<"ConvTranspose">> = {},
): Value => apply("ConvTranspose", [x, w], { strides, pads, dilations, group, outputPadding });

/** Shapes that values have been given: whoever reshapes one in the same way again gets the same value. */
const reshaped = new WeakMap<Value, Map<string, Value>>();

/** The same elements in another shape; one dimension may be -1. The value itself if nothing changes. */
export function reshape(x: Value, shape: Shape): Value {
  const open = shape.indexOf(-1);
  const rest = dimProduct(shape.filter((_, i) => i !== open));
  const resolved =
    open < 0
      ? shape
      : shape.map((dim, i) => (i === open ? (dimDivide(dimProduct(x.shape), rest) ?? -1) : dim));
  if (shapeEquals(x.shape, resolved)) return x;
  if (x.source.kind === "node" && x.source.node.op === "Reshape")
    return reshape((x.source.node as Node<"Reshape">).inputs[0], resolved);
  const known = reshaped.get(x) ?? new Map<string, Value>();
  reshaped.set(x, known);
  const key = formatShape(resolved);
  const value = known.get(key) ?? apply("Reshape", [x], { shape: resolved });
  known.set(key, value);
  return value;
}

/** Undoing a transposition gives what was transposed. */
export function transpose(x: Value, perm: readonly number[]): Value {
  if (x.source.kind === "node" && x.source.node.op === "Transpose") {
    const { inputs, attributes } = x.source.node as Node<"Transpose">;
    if (perm.every((axis, i) => attributes.perm[axis] === i)) return inputs[0];
  }
  return apply("Transpose", [x], { perm });
}

/** Swaps the last two axes. */
export function transposeLast(x: Value): Value {
  const perm = x.shape.map((_, i) => i);
  [perm[x.rank - 2], perm[x.rank - 1]] = [x.rank - 1, x.rank - 2];
  return transpose(x, perm);
}

/** Adds an axis of size 1 at `axis` of the result. */
export function unsqueeze(x: Value, axis: number): Value {
  const at = axis < 0 ? axis + x.rank + 1 : axis;
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/** Removes the axis `axis`, of size 1. */
export function squeeze(x: Value, axis: number): Value {
  const at = fromEnd(axis, x);
  return reshape(
    x,
    x.shape.filter((_, i) => i !== at),
  );
}

/** Broadcasts to `shape`; the value itself if it has it already. */
export const expand = (x: Value, shape: Shape): Value =>
  shapeEquals(x.shape, shape) ? x : apply("Expand", [x], { shape });

export const concat = (inputs: readonly Value[], axis: number): Value =>
  inputs.length === 1 ? inputs[0]! : apply("Concat", inputs, { axis: fromEnd(axis, inputs[0]!) });

/** Elements start to end (exclusive) along one axis; both count from the front. The value itself if that is all of it. */
export function slice(x: Value, axis: number, start: Dim, end: Dim): Value {
  const at = fromEnd(axis, x);
  if (start === 0 && dimEquals(end, x.shape[at] ?? 0)) return x;
  return apply("Slice", [x], { axis: at, start, end });
}

/** Zeros before and after along one axis. */
export const pad = (x: Value, axis: number, before: Dim, after: Dim): Value =>
  apply("Pad", [x], { axis: fromEnd(axis, x), before, after });

/** The numbers start, start + 1, … below limit. */
export const range = (start: Dim, limit: Dim, dtype: DType = "float32"): Value =>
  apply("Range", [cast(dimValue(start), dtype), cast(dimValue(limit), dtype)], {
    length: dimSubtract(limit, start),
  });

/** A tensor of one repeated number. */
export const full = (value: number, shape: Shape, dtype: DType = "float32"): Value =>
  expand(scalar(value, dtype), shape);

export const gather = (
  data: Value,
  indices: Value,
  axis = 0,
  { paddingIndex }: { paddingIndex?: number | undefined } = {},
): Value =>
  apply("Gather", [data, indices], {
    axis: fromEnd(axis, data),
    ...(paddingIndex !== undefined && { paddingIndex }),
  });

export const gatherElements = (data: Value, indices: Value, axis: number): Value =>
  apply("GatherElements", [data, indices], { axis: fromEnd(axis, data) });

export const scatterElementsAdd = (data: Value, indices: Value, updates: Value, axis: number): Value =>
  apply("ScatterElements", [data, indices, updates], { axis: fromEnd(axis, data) });

/** Adds rows: result[indices[i]] += updates[i]; indices without the trailing axis that ONNX wants. */
export const scatterRowsAdd = (data: Value, indices: Value, updates: Value): Value =>
  apply("ScatterND", [data, unsqueeze(indices, -1), updates], {});

export function where(condition: Value, a: Operand, b: Operand): Value {
  const [whenTrue, whenFalse] = operands(a, b);
  return apply("Where", [condition, whenTrue, whenFalse], {});
}

/** x / sqrt(mean(x²) + epsilon) · scale over the last axis. */
export const rmsNorm = (x: Value, scale: Value, epsilon: number): Value =>
  apply("SimplifiedLayerNormalization", [x, scale], { epsilon });

/** (x - mean) / sqrt(variance + epsilon) · scale + bias over the last axis. */
export const layerNorm = (x: Value, scale: Value, bias: Value | undefined, epsilon: number): Value =>
  apply("LayerNormalization", [x, scale, bias], { epsilon });

/** Rotates x [batch, heads, sequence, size] by cos, sin [rows, size / 2] at positions [batch, sequence]. */
export const rotaryEmbedding = (x: Value, positions: Value, cosTable: Value, sinTable: Value): Value =>
  apply("RotaryEmbedding", [x, positions, cosTable, sinTable], {});

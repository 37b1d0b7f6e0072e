import {
  broadcastShapes,
  type Dim,
  dimAdd,
  dimEquals,
  dimProduct,
  dimSubtract,
  formatShape,
  type Shape,
  shapeEquals,
} from "../dim.ts";
import type { Value } from "../value.ts";
import {
  fail,
  type Infer,
  type InferFrom,
  isFloat,
  isNegative,
  requireAxis,
  requireIndices,
  requireSameDtype,
} from "./infer-checks.ts";
import { inferConv, inferConvTranspose } from "./infer-conv.ts";
import {
  inferDequantizeLinear,
  inferMatMulNBits,
  inferQGemm,
  inferQuantizedMatMul,
  inferQuantizeLinear,
} from "./infer-quantized.ts";
import type { AttributesOf, InputsOf, OpName } from "./signatures.ts";

const replaceAxis = (shape: Shape, axis: number, dim: Dim): Dim[] =>
  shape.map((d, i) => (i === axis ? dim : d));

const same: Infer<"Neg"> = ([x]) => ({ dtype: x.dtype, shape: x.shape });

/** Unary on floats: shape and dtype stay. */
const float =
  (op: OpName): Infer<"Exp"> =>
  ([x]) =>
    isFloat(x.dtype) ? { dtype: x.dtype, shape: x.shape } : fail(op, `needs a float input, got ${x}.`);

/** A function of whole rows along one axis: shape and dtype stay. */
const alongAxis =
  (op: OpName): Infer<"Softmax"> =>
  ([x], { axis }) => {
    requireAxis(op, axis, x.shape);
    return { dtype: x.dtype, shape: x.shape };
  };

const arithmetic =
  (op: OpName): Infer<"Add"> =>
  ([a, b]) => ({ dtype: requireSameDtype(op, a, b), shape: broadcastShapes(a.shape, b.shape, op) });

const comparison =
  (op: OpName): Infer<"Less"> =>
  ([a, b]) => {
    requireSameDtype(op, a, b);
    return { dtype: "bool", shape: broadcastShapes(a.shape, b.shape, op) };
  };

const logical =
  (op: OpName): Infer<"And"> =>
  ([a, b]) =>
    requireSameDtype(op, a, b) === "bool"
      ? { dtype: "bool", shape: broadcastShapes(a.shape, b.shape, op) }
      : fail(op, `needs truth values, got ${a.dtype}.`);

const reduction =
  (op: OpName): Infer<"ReduceSum"> =>
  ([x], { axes, keepdims }) => {
    for (const axis of axes) requireAxis(op, axis, x.shape);
    if (axes.length === 0 || new Set(axes).size < axes.length)
      fail(op, `axes [${axes}] must be distinct, one at least.`);
    return {
      dtype: x.dtype,
      shape: x.shape.flatMap((dim, i) => (axes.includes(i) ? (keepdims ? [1] : []) : [dim])),
    };
  };

const inferMatMul: Infer<"MatMul"> = ([a, b]) => {
  const dtype = requireSameDtype("MatMul", a, b);
  if (a.rank < 2 || b.rank < 2) fail("MatMul", `needs two axes or more, got ${a} and ${b}.`);
  const [m, inner] = a.shape.slice(-2) as [Dim, Dim];
  const [innerB, n] = b.shape.slice(-2) as [Dim, Dim];
  if (!dimEquals(inner, innerB))
    fail("MatMul", `inner sizes differ: ${formatShape(a.shape)} times ${formatShape(b.shape)}.`);
  return { dtype, shape: [...broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), "MatMul"), m, n] };
};

const inferGemm: Infer<"Gemm"> = ([a, b, c], { transA, transB }) => {
  const dtype = requireSameDtype("Gemm", a, b, ...(c ? [c] : []));
  if (a.rank !== 2 || b.rank !== 2) fail("Gemm", `needs two axes, got ${a} and ${b}.`);
  const [m, inner] = transA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
  const [innerB, n] = transB ? [b.shape[1]!, b.shape[0]!] : [b.shape[0]!, b.shape[1]!];
  if (!dimEquals(inner, innerB))
    fail(
      "Gemm",
      `inner sizes differ: ${formatShape(a.shape)}${transA ? "ᵀ" : ""} times ${formatShape(b.shape)}${transB ? "ᵀ" : ""}.`,
    );
  if (c && !shapeEquals(broadcastShapes([m, n], c.shape, "Gemm"), [m, n]))
    fail("Gemm", `c ${formatShape(c.shape)} does not broadcast to ${formatShape([m, n])}.`);
  return { dtype, shape: [m, n] };
};

const inferReshape: Infer<"Reshape"> = ([x], { shape }) =>
  dimEquals(dimProduct(x.shape), dimProduct(shape))
    ? { dtype: x.dtype, shape }
    : fail("Reshape", `${formatShape(x.shape)} and ${formatShape(shape)} differ in size.`);

const inferTranspose: Infer<"Transpose"> = ([x], { perm }) =>
  perm.length === x.rank && new Set(perm).size === x.rank && perm.every((axis) => axis >= 0 && axis < x.rank)
    ? { dtype: x.dtype, shape: perm.map((axis) => x.shape[axis]!) }
    : fail("Transpose", `[${perm}] is no permutation of the axes of ${formatShape(x.shape)}.`);

const inferExpand: Infer<"Expand"> = ([x], { shape }) =>
  shapeEquals(broadcastShapes(x.shape, shape, "Expand"), shape)
    ? { dtype: x.dtype, shape }
    : fail("Expand", `${formatShape(x.shape)} does not expand to ${formatShape(shape)}.`);

const inferConcat: Infer<"Concat"> = (inputs, { axis }) => {
  const [first] = inputs as readonly [Value];
  const dtype = requireSameDtype("Concat", ...inputs);
  requireAxis("Concat", axis, first.shape);
  for (const { shape } of inputs)
    if (!shapeEquals(replaceAxis(shape, axis, 0), replaceAxis(first.shape, axis, 0)))
      fail("Concat", `${formatShape(first.shape)} and ${formatShape(shape)} differ outside axis ${axis}.`);
  return { dtype, shape: replaceAxis(first.shape, axis, inputs.map((x) => x.shape[axis]!).reduce(dimAdd)) };
};

const inferSlice: Infer<"Slice"> = ([x], { axis, start, end }) => {
  requireAxis("Slice", axis, x.shape);
  const beyond = dimSubtract(x.shape[axis]!, end);
  if ([start, dimSubtract(end, start), beyond].some(isNegative))
    fail("Slice", `${start} to ${end} is no range of axis ${axis} of ${formatShape(x.shape)}.`);
  return { dtype: x.dtype, shape: replaceAxis(x.shape, axis, dimSubtract(end, start)) };
};

const inferPad: Infer<"Pad"> = ([x], { axis, before, after }) => {
  requireAxis("Pad", axis, x.shape);
  if ([before, after].some(isNegative)) fail("Pad", `cannot add ${before} before and ${after} after.`);
  return { dtype: x.dtype, shape: replaceAxis(x.shape, axis, dimAdd(dimAdd(before, x.shape[axis]!), after)) };
};

const inferGather: Infer<"Gather"> = ([data, indices], { axis }) => {
  requireAxis("Gather", axis, data.shape);
  requireIndices("Gather", indices);
  return {
    dtype: data.dtype,
    shape: [...data.shape.slice(0, axis), ...indices.shape, ...data.shape.slice(axis + 1)],
  };
};

/** Indices pick along one axis and may leave out the end of the others. */
function requireElementIndices(op: OpName, data: Value, indices: Value, axis: number): void {
  requireAxis(op, axis, data.shape);
  requireIndices(op, indices);
  const fits = (dim: Dim, limit: Dim): boolean =>
    typeof dim === "number" && typeof limit === "number" ? dim <= limit : dimEquals(dim, limit);
  if (indices.rank !== data.rank || !indices.shape.every((dim, i) => i === axis || fits(dim, data.shape[i]!)))
    fail(op, `${formatShape(indices.shape)} does not index axis ${axis} of ${formatShape(data.shape)}.`);
}

const inferGatherElements: Infer<"GatherElements"> = ([data, indices], { axis }) => {
  requireElementIndices("GatherElements", data, indices, axis);
  return { dtype: data.dtype, shape: indices.shape };
};

const inferScatterElements: Infer<"ScatterElements"> = ([data, indices, updates], { axis }) => {
  requireElementIndices("ScatterElements", data, indices, axis);
  requireSameDtype("ScatterElements", data, updates);
  if (!shapeEquals(indices.shape, updates.shape))
    fail(
      "ScatterElements",
      `updates ${formatShape(updates.shape)} and indices ${formatShape(indices.shape)} differ.`,
    );
  return { dtype: data.dtype, shape: data.shape };
};

const inferScatterND: Infer<"ScatterND"> = ([data, indices, updates]) => {
  requireSameDtype("ScatterND", data, updates);
  requireIndices("ScatterND", indices);
  if (indices.shape.at(-1) !== 1)
    fail("ScatterND", `indices must end in an axis of 1, got ${formatShape(indices.shape)}.`);
  const expected = [...indices.shape.slice(0, -1), ...data.shape.slice(1)];
  if (!shapeEquals(updates.shape, expected))
    fail("ScatterND", `updates have shape ${formatShape(updates.shape)}, expected ${formatShape(expected)}.`);
  return { dtype: data.dtype, shape: data.shape };
};

const inferWhere: Infer<"Where"> = ([condition, a, b]) => {
  if (condition.dtype !== "bool") fail("Where", `the condition is ${condition.dtype}, not bool.`);
  const branches = broadcastShapes(a.shape, b.shape, "Where");
  return {
    dtype: requireSameDtype("Where", a, b),
    shape: broadcastShapes(condition.shape, branches, "Where"),
  };
};

const inferNorm: Infer<"SimplifiedLayerNormalization"> = ([x, scale]) =>
  shapeEquals(scale.shape, x.shape.slice(-1))
    ? { dtype: requireSameDtype("SimplifiedLayerNormalization", x, scale), shape: x.shape }
    : fail(
        "SimplifiedLayerNormalization",
        `scale ${formatShape(scale.shape)} does not fit ${formatShape(x.shape)}.`,
      );

const inferRotary: Infer<"RotaryEmbedding"> = ([x, positions, cos, sin]) => {
  if (x.rank !== 4)
    fail("RotaryEmbedding", `needs [batch, heads, sequence, size], got ${formatShape(x.shape)}.`);
  const [batch, , sequence, size] = x.shape as [Dim, Dim, Dim, Dim];
  if (!shapeEquals(positions.shape, [batch, sequence]))
    fail(
      "RotaryEmbedding",
      `positions are ${formatShape(positions.shape)}, expected ${formatShape([batch, sequence])}.`,
    );
  for (const table of [cos, sin])
    if (table.rank !== 2 || typeof size !== "number" || table.shape[1] !== size / 2)
      fail("RotaryEmbedding", `the table ${formatShape(table.shape)} does not fit a head size of ${size}.`);
  return { dtype: requireSameDtype("RotaryEmbedding", x, cos, sin), shape: x.shape };
};

const inferLayerNorm: Infer<"LayerNormalization"> = ([x, scale, bias]) => {
  const parts = bias ? [scale, bias] : [scale];
  for (const part of parts)
    if (!shapeEquals(part.shape, x.shape.slice(-1)))
      fail(
        "LayerNormalization",
        `scale or bias ${formatShape(part.shape)} does not fit ${formatShape(x.shape)}.`,
      );
  return { dtype: requireSameDtype("LayerNormalization", x, ...parts), shape: x.shape };
};

/** Output type of every operator, or a GraphError that names the operator and the shapes. */
export const inference: { readonly [Op in OpName]: InferFrom<InputsOf<Op>, AttributesOf<Op>> } = {
  Add: arithmetic("Add"),
  Sub: arithmetic("Sub"),
  Mul: arithmetic("Mul"),
  Div: arithmetic("Div"),
  Pow: arithmetic("Pow"),
  Neg: same,
  Sqrt: float("Sqrt"),
  Exp: float("Exp"),
  Log: float("Log"),
  Reciprocal: float("Reciprocal"),
  Sigmoid: float("Sigmoid"),
  Tanh: float("Tanh"),
  Erf: float("Erf"),
  Relu: same,
  Cos: float("Cos"),
  Sin: float("Sin"),
  Identity: same,
  Abs: same,
  Gelu: ([x]) => float("Gelu")([x], {}),
  QuickGelu: ([x]) => float("QuickGelu")([x], {}),
  Cast: ([x], { to }) => ({ dtype: to, shape: x.shape }),
  MatMul: inferMatMul,
  Gemm: inferGemm,
  QuantizedMatMul: inferQuantizedMatMul,
  QuantizeLinear: inferQuantizeLinear,
  DequantizeLinear: inferDequantizeLinear,
  QGemm: inferQGemm,
  MatMulNBits: inferMatMulNBits,
  Softmax: alongAxis("Softmax"),
  LogSoftmax: alongAxis("LogSoftmax"),
  Conv: inferConv,
  ConvTranspose: inferConvTranspose,
  After: ([x]) =>
    x.rank === 0 ? fail("After", `needs an axis at least, got ${x}.`) : { dtype: x.dtype, shape: x.shape },
  Boundary: ([x]) => ({ dtype: x.dtype, shape: x.shape }),
  Reshape: inferReshape,
  Transpose: inferTranspose,
  Expand: inferExpand,
  Concat: inferConcat,
  Slice: inferSlice,
  Pad: inferPad,
  Range: ([start, limit], { length }) => ({
    dtype: requireSameDtype("Range", start, limit),
    shape: [length],
  }),
  ReduceSum: reduction("ReduceSum"),
  ReduceMean: reduction("ReduceMean"),
  ReduceMax: reduction("ReduceMax"),
  ReduceLogSumExp: reduction("ReduceLogSumExp"),
  Gather: inferGather,
  GatherElements: inferGatherElements,
  ScatterElements: inferScatterElements,
  ScatterND: inferScatterND,
  Where: inferWhere,
  Equal: comparison("Equal"),
  Less: comparison("Less"),
  LessOrEqual: comparison("LessOrEqual"),
  Greater: comparison("Greater"),
  GreaterOrEqual: comparison("GreaterOrEqual"),
  And: logical("And"),
  Or: logical("Or"),
  BitwiseXor: arithmetic("BitwiseXor"),
  Not: ([x]) =>
    x.dtype === "bool" ? { dtype: "bool", shape: x.shape } : fail("Not", `needs a truth value, got ${x}.`),
  SimplifiedLayerNormalization: inferNorm,
  LayerNormalization: inferLayerNorm,
  RotaryEmbedding: inferRotary,
};

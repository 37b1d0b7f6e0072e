import type { DType } from "../../tensor/index.ts";
import type { Dim } from "../dim.ts";
import type { Value } from "../value.ts";

type Op<Inputs extends readonly (Value | undefined)[], Attributes extends object = object> = {
  inputs: Inputs;
  attributes: Attributes;
};
type Unary = Op<readonly [x: Value]>;
type Binary = Op<readonly [a: Value, b: Value]>;
/** Two spatial axes each, height first; pads are before and after each: top, left, bottom, right. */
export type ConvAttributes = {
  readonly strides: readonly [number, number];
  readonly pads: readonly [number, number, number, number];
  readonly dilations: readonly [number, number];
  readonly group: number;
};
type Reduction = Op<readonly [x: Value], { readonly axes: readonly number[]; readonly keepdims: boolean }>;

/**
 * Every operator of a graph, with ONNX's names and meanings (opset 20, and ONNX Runtime's own where noted).
 * What ONNX takes as a constant input (a shape, axes, slice bounds) is an attribute here: it is known when the graph
 * is built, up to symbolic dimensions, and emission turns it into a tensor. All axes are non-negative.
 */
export type OpSignatures = {
  Add: Binary;
  Sub: Binary;
  Mul: Binary;
  Div: Binary;
  Pow: Binary;
  Neg: Unary;
  Sqrt: Unary;
  Exp: Unary;
  Log: Unary;
  Reciprocal: Unary;
  Sigmoid: Unary;
  Tanh: Unary;
  Erf: Unary;
  Relu: Unary;
  Cos: Unary;
  Sin: Unary;
  Identity: Unary;
  Abs: Unary;
  Gelu: Op<readonly [x: Value], { readonly approximate: "none" | "tanh" }>;
  /** com.microsoft: x σ(alpha x); SiLU with alpha 1. */
  QuickGelu: Op<readonly [x: Value], { readonly alpha: number }>;
  Cast: Op<readonly [x: Value], { readonly to: DType }>;

  MatMul: Binary;
  /** y = alpha · op(a) op(b) + beta · c, all two-dimensional; c broadcasts. */
  Gemm: Op<
    readonly [a: Value, b: Value, c: Value | undefined],
    { readonly alpha: number; readonly beta: number; readonly transA: boolean; readonly transB: boolean }
  >;
  /**
   * Graft's own: x Ŵᵀ (transB) or x Ŵ for a quantised weight Ŵ of [out, in], two-dimensional x. Every device rewrites it before
   * emission, into a product of integers or into a product with Ŵ itself.
   * int8: codes [out, in] int8, scales [out], Ŵ[n, k] = scales[n] · codes[n, k].
   * uint8: codes [out, in / 2], each two signed numbers of 4 bits, the lower half first; scales [out, blocks] for as many blocks
   * of equal length in each row.
   * `rounded` says whether x may be rounded to 8 bits as well, for codes of int8; `roundedGradient` the same of the gradient.
   */
  QuantizedMatMul: Op<
    readonly [x: Value, codes: Value, scales: Value],
    { readonly transB: boolean; readonly rounded: boolean; readonly roundedGradient: boolean }
  >;
  /** Nearest uint8 to x / scale + zeroPoint, ties to even; scale and zeroPoint are scalars. */
  QuantizeLinear: Op<readonly [x: Value, scale: Value, zeroPoint: Value]>;
  /**
   * scale · codes along an axis, scale [codes.shape[axis]]. With a block size, of a weight that holds signed numbers of 4 bits by
   * twos: codes [out, in / 2] uint8, scale [out, in / blockSize], result [out, in], axis 1.
   */
  DequantizeLinear: Op<
    readonly [codes: Value, scale: Value],
    { readonly axis: number; readonly blockSize?: number }
  >;
  /**
   * com.microsoft: aScale · bScale · (a - aZero) op(b - bZero) in float32, for uint8 a [m, inner] and int8 b; aScale and aZero
   * scalars, bScale and bZero scalars or one per column of the result.
   */
  QGemm: Op<
    readonly [a: Value, aScale: Value, aZero: Value, b: Value, bScale: Value, bZero: Value],
    { readonly transB: boolean }
  >;
  /**
   * com.microsoft: x Ŵᵀ for x [m, in] and blocks of codes [out, blocks, bytes] uint8, two in a byte, the first in its lower half, with
   * scales [out, blocks]: Ŵ = scale · (code - 8). Blocks of x are rounded to 8 bits. Without prepacking it is slower than unpacking.
   */
  MatMulNBits: Op<readonly [x: Value, codes: Value, scales: Value]>;
  Softmax: Op<readonly [x: Value], { readonly axis: number }>;
  /** x - ln Σ exp x along one axis. */
  LogSoftmax: Op<readonly [x: Value], { readonly axis: number }>;
  /** x [batch, in, height, width] correlated with w [out, in / group, rows, columns], plus b [out]. */
  Conv: Op<readonly [x: Value, w: Value, b: Value | undefined], ConvAttributes>;
  /**
   * The transpose of Conv in x: x [batch, in, height, width], w [in, out / group, rows, columns]. `outputPadding` is how much
   * larger the result is than the smallest that Conv would reduce to the size of x.
   */
  ConvTranspose: Op<
    readonly [x: Value, w: Value],
    ConvAttributes & { readonly outputPadding: readonly [number, number] }
  >;

  /**
   * Graft's own: x, but computed no sooner than `earlier`, of which nothing is read. It says in which order an engine is to work where
   * that decides how much memory it takes. Emitted as a Reshape of x to its own shape, to which 0 times a size (or an element) of `earlier` is added: no element is copied.
   */
  After: Op<readonly [x: Value, earlier: Value]>;
  /**
   * Graft's own: x, where it enters a block of a model whose values the backward pass computes again, or without a number where
   * it leaves one. See checkpointing.ts.
   */
  Boundary: Op<readonly [x: Value], { readonly block?: number }>;
  Reshape: Op<readonly [x: Value], { readonly shape: readonly Dim[] }>;
  Transpose: Op<readonly [x: Value], { readonly perm: readonly number[] }>;
  Expand: Op<readonly [x: Value], { readonly shape: readonly Dim[] }>;
  Concat: Op<readonly Value[], { readonly axis: number }>;
  Slice: Op<readonly [x: Value], { readonly axis: number; readonly start: Dim; readonly end: Dim }>;
  /** Zeros before and after along one axis. */
  Pad: Op<readonly [x: Value], { readonly axis: number; readonly before: Dim; readonly after: Dim }>;
  /** start, start + 1, … up to but not including limit. */
  Range: Op<readonly [start: Value, limit: Value], { readonly length: Dim }>;

  ReduceSum: Reduction;
  ReduceMean: Reduction;
  ReduceMax: Reduction;
  ReduceLogSumExp: Reduction;

  /** `paddingIndex`: what lies there along the axis has no gradient, as with torch's padding_idx. */
  Gather: Op<
    readonly [data: Value, indices: Value],
    { readonly axis: number; readonly paddingIndex?: number }
  >;
  GatherElements: Op<readonly [data: Value, indices: Value], { readonly axis: number }>;
  /** Copy of data with updates added at indices along one axis. */
  ScatterElements: Op<readonly [data: Value, indices: Value, updates: Value], { readonly axis: number }>;
  /** Copy of data with rows of updates added; indices [..., 1] choose along axis 0. */
  ScatterND: Op<readonly [data: Value, indices: Value, updates: Value]>;

  Where: Op<readonly [condition: Value, a: Value, b: Value]>;
  Equal: Binary;
  Less: Binary;
  LessOrEqual: Binary;
  Greater: Binary;
  GreaterOrEqual: Binary;
  And: Binary;
  Or: Binary;
  Not: Unary;
  /** Of integers, bit by bit. */
  BitwiseXor: Binary;

  /** ONNX Runtime: x / sqrt(mean(x²) + epsilon) · scale over the last axis. */
  SimplifiedLayerNormalization: Op<readonly [x: Value, scale: Value], { readonly epsilon: number }>;
  /** (x - mean) / sqrt(variance + epsilon) · scale + bias over the last axis. */
  LayerNormalization: Op<
    readonly [x: Value, scale: Value, bias: Value | undefined],
    { readonly epsilon: number }
  >;
  /** com.microsoft: rotates halves of x [batch, heads, sequence, size] by the angles of rows `positions` of cos, sin. */
  RotaryEmbedding: Op<readonly [x: Value, positions: Value, cos: Value, sin: Value]>;
};

export type OpName = keyof OpSignatures;
export type InputsOf<Op extends OpName> = OpSignatures[Op]["inputs"];
export type AttributesOf<Op extends OpName> = OpSignatures[Op]["attributes"];

import type { DType } from "../../tensor/index.ts";
import { type Dim, hasQuotient, type Shape, shapeEquals } from "../dim.ts";
import type { AttributesOf, ConvAttributes, InputsOf, OpName } from "../ops/signatures.ts";
import { TensorProto_DataType } from "./onnx_pb.ts";

/** An ONNX attribute. Integers and floats are told apart, since JavaScript does not. */
export type OnnxAttribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly ints: readonly number[] }
  | { readonly string: string };

/** How an operator is written in ONNX: attributes, and inputs that follow the operands. */
export type Encoding = {
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, OnnxAttribute>>;
  /** One-dimensional int64 tensors, as dimensions; symbolic ones are computed at run time. */
  readonly dims?: readonly Shape[];
  /** Constant scalars, of the dtype of the first operand. */
  readonly scalars?: readonly number[];
  /** The opset that the operator needs, if it is a later one than that of most. */
  readonly opset?: number;
  /** Whether the first operand, a weight, holds signed numbers of 4 bits by twos, of which its last axis counts pairs. */
  readonly fourBits?: boolean;
};

type Encode<Inputs, Attributes> = (attributes: Attributes, inputs: Inputs) => Encoding;
type EncodeFor<Op extends OpName> = Encode<InputsOf<Op>, AttributesOf<Op>>;

const int = (value: number | boolean): OnnxAttribute => ({ int: Number(value) });

const convolution = ({ strides, pads, dilations, group }: ConvAttributes) => ({
  strides: { ints: strides },
  pads: { ints: pads },
  dilations: { ints: dilations },
  group: int(group),
});

export const onnxDataTypes: { readonly [D in DType]: TensorProto_DataType } = {
  float64: TensorProto_DataType.DOUBLE,
  float32: TensorProto_DataType.FLOAT,
  float16: TensorProto_DataType.FLOAT16,
  bfloat16: TensorProto_DataType.BFLOAT16,
  float8e4m3fn: TensorProto_DataType.FLOAT8E4M3FN,
  float8e5m2: TensorProto_DataType.FLOAT8E5M2,
  int64: TensorProto_DataType.INT64,
  int32: TensorProto_DataType.INT32,
  int16: TensorProto_DataType.INT16,
  int8: TensorProto_DataType.INT8,
  uint64: TensorProto_DataType.UINT64,
  uint32: TensorProto_DataType.UINT32,
  uint16: TensorProto_DataType.UINT16,
  uint8: TensorProto_DataType.UINT8,
  bool: TensorProto_DataType.BOOL,
};

const plain = (): Encoding => ({});
const axisOnly = ({ axis }: { axis: number }): Encoding => ({ attributes: { axis: int(axis) } });
const reduction: EncodeFor<"ReduceSum"> = ({ axes, keepdims }) => ({
  attributes: { keepdims: int(keepdims) },
  dims: [axes],
});

/**
 * The shape input of Reshape, in the form that needs no run-time computation if there is one: 0 copies the input's
 * dimension at the same place, one -1 stands for whatever is left.
 */
export function reshapeTarget(from: Shape, to: Shape): Shape {
  const copied = to.map(
    (dim, i): Dim => (typeof dim === "number" || !shapeEquals([dim], from.slice(i, i + 1)) ? dim : 0),
  );
  const unknown = copied.flatMap((dim, i) => (typeof dim === "number" ? [] : [i]));
  return unknown.length === 1
    ? copied.map((dim, i) => (i === unknown[0] ? -1 : dim))
    : unknown.length === 0
      ? copied
      : to;
}

export const encodings: { readonly [Op in OpName]: Encode<InputsOf<Op>, AttributesOf<Op>> } = {
  Add: plain,
  Sub: plain,
  Mul: plain,
  Div: plain,
  Pow: plain,
  Neg: plain,
  Sqrt: plain,
  Exp: plain,
  Log: plain,
  Reciprocal: plain,
  Sigmoid: plain,
  Tanh: plain,
  Erf: plain,
  Relu: plain,
  Cos: plain,
  Sin: plain,
  Identity: plain,
  Abs: plain,
  Gelu: ({ approximate }) => ({ attributes: { approximate: { string: approximate } } }),
  QuickGelu: ({ alpha }) => ({ domain: "com.microsoft", attributes: { alpha: { float: alpha } } }),
  Cast: ({ to }) => ({ attributes: { to: int(onnxDataTypes[to]) } }),
  MatMul: plain,
  Gemm: ({ alpha, beta, transA, transB }) => ({
    attributes: { alpha: { float: alpha }, beta: { float: beta }, transA: int(transA), transB: int(transB) },
  }),
  // No device knows it: lowering replaces it. Programs that are only compared or hashed have it.
  QuantizedMatMul: ({ transB, rounded, roundedGradient }) => ({
    domain: "graft",
    attributes: { transB: int(transB), rounded: int(rounded), roundedGradient: int(roundedGradient) },
  }),
  QuantizeLinear: plain,
  DequantizeLinear: ({ axis, blockSize }) =>
    blockSize === undefined
      ? axisOnly({ axis })
      : { attributes: { axis: int(axis), block_size: int(blockSize) }, opset: 21, fourBits: true },
  QGemm: ({ transB }) => ({ domain: "com.microsoft", attributes: { transB: int(transB) } }),
  MatMulNBits: (_, [, codes]) => {
    const [out, blocks, bytes] = codes.shape as [number, number, number];
    return {
      domain: "com.microsoft",
      attributes: {
        K: int(2 * blocks * bytes),
        N: int(out),
        bits: int(4),
        block_size: int(2 * bytes),
        accuracy_level: int(4),
      },
    };
  },
  Softmax: axisOnly,
  LogSoftmax: axisOnly,
  Conv: (attributes) => ({ attributes: convolution(attributes) }),
  ConvTranspose: (attributes) => ({
    attributes: { ...convolution(attributes), output_padding: { ints: attributes.outputPadding } },
  }),
  // The target as a value; emission makes it wait.
  After: (_, [x]) => ({ dims: [x.shape] }),
  Boundary: plain,
  // With empty axes 0 cannot stand for a copy, and -1 for nothing.
  Reshape: ({ shape }, [x]) =>
    shape.some(hasQuotient)
      ? { dims: [shape], attributes: { allowzero: int(true) } }
      : { dims: [reshapeTarget(x.shape, shape)] },
  Transpose: ({ perm }) => ({ attributes: { perm: { ints: perm } } }),
  Expand: ({ shape }) => ({ dims: [shape] }),
  Concat: axisOnly,
  Slice: ({ axis, start, end }) => ({ dims: [[start], [end], [axis]] }),
  Pad: ({ axis, before, after }, [x]) => {
    const along = (dim: Dim): Dim[] => x.shape.map((_, i) => (i === axis ? dim : 0));
    return { dims: [[...along(before), ...along(after)]] };
  },
  Range: () => ({ scalars: [1] }),
  ReduceSum: reduction,
  ReduceMean: reduction,
  ReduceMax: reduction,
  ReduceLogSumExp: reduction,
  Gather: axisOnly,
  GatherElements: axisOnly,
  ScatterElements: ({ axis }) => ({ attributes: { axis: int(axis), reduction: { string: "add" } } }),
  ScatterND: () => ({ attributes: { reduction: { string: "add" } } }),
  Where: plain,
  Equal: plain,
  Less: plain,
  LessOrEqual: plain,
  Greater: plain,
  GreaterOrEqual: plain,
  And: plain,
  Or: plain,
  Not: plain,
  BitwiseXor: plain,
  SimplifiedLayerNormalization: ({ epsilon }) => ({
    attributes: { axis: int(-1), epsilon: { float: epsilon }, stash_type: int(1) },
  }),
  LayerNormalization: ({ epsilon }) => ({
    attributes: { axis: int(-1), epsilon: { float: epsilon }, stash_type: int(1) },
  }),
  RotaryEmbedding: () => ({ domain: "com.microsoft", attributes: { interleaved: int(false) } }),
};

import { evaluateDim } from "../dim.ts";
import type { InputsOf, OpName } from "../ops/signatures.ts";
import type { Node, Value } from "../value.ts";

/** Elements are counted for symbols of known size. */
export type Sizes = ReadonlyMap<string, number>;

/** What an operator does with each element of its result: numbers are FLOPs, and what is not a product is weighed. */
type Cost = number | "product" | "rounded product" | "convolution" | "transposed convolution";

/** Elements are moved or computed at the speed of memory, which takes as long as several FLOPs of a product. */
const MOVE = 4;
/** Functions that take a series or several passes. */
const FUNCTION = 10;

const costs: { readonly [Op in OpName]: Cost } = {
  Add: MOVE,
  Sub: MOVE,
  Mul: MOVE,
  Div: MOVE,
  Pow: FUNCTION,
  Neg: MOVE,
  Sqrt: MOVE,
  Exp: FUNCTION,
  Log: FUNCTION,
  Reciprocal: MOVE,
  Sigmoid: FUNCTION,
  Tanh: FUNCTION,
  Erf: FUNCTION,
  Relu: MOVE,
  Cos: FUNCTION,
  Sin: FUNCTION,
  Identity: 0,
  Abs: MOVE,
  Gelu: FUNCTION,
  QuickGelu: FUNCTION,
  Cast: MOVE,
  MatMul: "product",
  Gemm: "product",
  QuantizedMatMul: "rounded product",
  QuantizeLinear: MOVE,
  DequantizeLinear: MOVE,
  QGemm: "rounded product",
  MatMulNBits: "rounded product",
  Softmax: FUNCTION,
  LogSoftmax: FUNCTION,
  Conv: "convolution",
  ConvTranspose: "transposed convolution",
  After: 0,
  Boundary: 0,
  Reshape: 0,
  Transpose: MOVE,
  Expand: MOVE,
  Concat: MOVE,
  Slice: MOVE,
  Pad: MOVE,
  Range: MOVE,
  ReduceSum: MOVE,
  ReduceMean: MOVE,
  ReduceMax: MOVE,
  ReduceLogSumExp: FUNCTION,
  Gather: MOVE,
  GatherElements: MOVE,
  ScatterElements: MOVE,
  ScatterND: MOVE,
  Where: MOVE,
  Equal: MOVE,
  Less: MOVE,
  LessOrEqual: MOVE,
  Greater: MOVE,
  GreaterOrEqual: MOVE,
  And: MOVE,
  Or: MOVE,
  Not: MOVE,
  BitwiseXor: MOVE,
  SimplifiedLayerNormalization: FUNCTION,
  LayerNormalization: FUNCTION,
  RotaryEmbedding: FUNCTION,
};

/** Elements of a value. @throws GraphError for a symbol without a size. */
export const elementsOf = ({ shape }: Value, sizes: Sizes): number =>
  shape.reduce<number>((product, dim) => product * evaluateDim(dim, sizes), 1);

/**
 * Work of one operator, in floating-point operations of a matrix product: 2 m n k for a product, 2 · results · window for a
 * convolution, and for everything else the elements of its result (of a reduction, of its operand) times a small factor.
 * @throws GraphError for a symbol without a size.
 */
export function flopsOf(node: Node, sizes: Sizes): number {
  const cost = costs[node.op];
  if (cost === 0) return 0;
  const [a, b] = node.inputs as InputsOf<"MatMul">;
  const [y] = node.outputs as readonly [Value];
  const results = elementsOf(y, sizes);
  switch (cost) {
    case "product": {
      const transposed = node.op === "Gemm" && (node as Node<"Gemm">).attributes.transA;
      return 2 * results * evaluateDim(a.shape.at(transposed ? 0 : -1)!, sizes);
    }
    case "rounded product": // of 8-bit integers, three times as fast as of floats
      return (2 * results * evaluateDim(a.shape.at(-1)!, sizes)) / 3;
    case "convolution": // each result sums a window [in / group, rows, columns]
      return (2 * results * elementsOf(b, sizes)) / evaluateDim(b.shape[0]!, sizes);
    case "transposed convolution": // each operand is spread over a window [out / group, rows, columns]
      return (2 * elementsOf(a, sizes) * elementsOf(b, sizes)) / evaluateDim(b.shape[0]!, sizes);
    default:
      return cost * Math.max(results, node.op.startsWith("Reduce") ? elementsOf(a, sizes) : 0);
  }
}

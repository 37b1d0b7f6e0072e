import { constant, op, type Value, type WeightStorage, weight } from "../graph/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";

/** Input channels that are kept out of the rounded product, because their activations dwarf the others'. */
export type OutlierChannels = {
  /** Ascending. */
  readonly channels: readonly number[];
  /** Their columns of the weight as it was, [out, channels]. */
  readonly columns: Tensor<"float32">;
};

/** What stands for a frozen weight [out, in] in products: see the operator QuantizedMatMul. */
export type QuantizedWeight = {
  readonly codes: WeightStorage;
  readonly scales: WeightStorage;
  /** Directions in which the left factor may be rounded to 8 bits as well. */
  readonly rounded: { readonly forward: boolean; readonly backward: boolean };
  readonly outliers?: OutlierChannels | undefined;
};

/**
 * x Ŵᵀ for the weight Ŵ that the codes stand for. With outlier channels O, (x without O) Ŵᵀ + x_O W_Oᵀ, the second product in
 * float32 with the weight itself.
 * Shapes: x [rows, in], result [rows, out].
 * Source: Dettmers et al. 2022, "LLM.int8()", §3.2.
 */
export function quantizedProduct(x: Value, { codes, scales, rounded, outliers }: QuantizedWeight): Value {
  const product = (rows: Value): Value =>
    op.quantizedMatMul(rows, weight(codes), weight(scales), {
      transB: true,
      rounded: rounded.forward,
      roundedGradient: rounded.backward,
    });
  if (!outliers) return product(x);
  const { channels, columns } = outliers;
  const inner = x.shape[1] as number;
  const others = new Float32Array(inner).fill(1);
  const picks = new Float32Array(channels.length * inner);
  for (const [i, channel] of channels.entries()) {
    others[channel] = 0;
    picks[i * inner + channel] = 1;
  }
  const rest = product(op.mul(x, constant(tensor("float32", [inner], others))));
  // As a product with rows of an identity, so that its derivative is one too.
  const picked = op.gemm(x, constant(tensor("float32", [channels.length, inner], picks)), { transB: true });
  return op.gemm(picked, constant(columns), { c: rest, transB: true });
}

import { dimProduct, op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";
import { type QuantizedWeight, quantizedProduct } from "./quantized-weight.ts";

/** Folds all axes but the last into one, so that a product is one two-dimensional Gemm. */
export const toRows = (x: Value): Value =>
  x.rank === 2 ? x : op.reshape(x, [dimProduct(x.shape.slice(0, -1)), x.shape.at(-1)!]);

/** Undoes `toRows`: gives `rows` [n, features] the leading axes of `like`. */
export const fromRows = (rows: Value, like: Value): Value =>
  like.rank === 2 ? rows : op.reshape(rows, [...like.shape.slice(0, -1), rows.shape[1]!]);

/**
 * y = x Wᵀ + b.
 * Shapes: x [..., in], W [out, in], b [out], y [..., out]. One copy of W serves both directions: the gradient is dy W.
 */
export class Linear extends Layer {
  override readonly className = "Linear";
  override readonly kind = "linear";
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Stands for the weight in products for as long as that is frozen. */
  quantized: QuantizedWeight | undefined;

  constructor(
    inFeatures: number,
    outFeatures: number,
    { bias = false, weight }: { bias?: boolean; weight?: Parameter } = {},
  ) {
    super();
    this.inFeatures = inFeatures;
    this.outFeatures = outFeatures;
    this.weight = weight ?? new Parameter([outFeatures, inFeatures]);
    this.bias = bias ? new Parameter([outFeatures]) : undefined;
  }

  override forward(x: Value): Value {
    const { weight, bias, quantized } = this;
    const rows = toRows(x);
    if (!quantized || weight.trainable)
      return fromRows(op.gemm(rows, weight.value, { c: bias?.value, transB: true }), x);
    const product = quantizedProduct(rows, quantized);
    return fromRows(bias ? op.add(product, bias.value) : product, x);
  }
}

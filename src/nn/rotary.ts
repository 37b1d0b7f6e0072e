import { type Dim, dimMultiply, op, type Value } from "../graph/index.ts";
import { Module } from "./module.ts";

/** Cosines and sines of every token's angles, one row per token of the batch. */
export type RotaryTable = {
  readonly cos: Value; // [batch · sequence, size / 2]
  readonly sin: Value;
  readonly rows: Value; // [batch, sequence], int64
};

/**
 * Rotary position embedding: pairs (x_i, x_{i + size/2}) turn by position · inverseFrequency_i; cos and sin are multiplied by
 * `attentionScaling`.
 * Source: Su et al. 2021; transformers LlamaRotaryEmbedding.
 */
export class RotaryEmbedding extends Module {
  override readonly className: string;
  readonly attentionScaling: number;

  constructor({ className, attentionScaling }: { className: string; attentionScaling: number }) {
    super();
    this.className = className;
    this.attentionScaling = attentionScaling;
  }

  /** Shapes: positions [batch, sequence] (float32), inverseFrequencies [size / 2]. */
  table(positions: Value, inverseFrequencies: Value): RotaryTable {
    const [batch, sequence] = positions.shape as [Dim, Dim];
    const tokens = dimMultiply(batch, sequence);
    const angles = op.mul(op.reshape(positions, [tokens, 1]), op.unsqueeze(inverseFrequencies, 0));
    const scaled = (x: Value): Value => (this.attentionScaling === 1 ? x : op.mul(x, this.attentionScaling));
    return {
      cos: scaled(op.cos(angles)),
      sin: scaled(op.sin(angles)),
      rows: op.reshape(op.range(0, tokens, "int64"), [batch, sequence]),
    };
  }

  /** Shape of x and of the result: [batch, heads, sequence, size]. */
  static rotate(x: Value, { cos, sin, rows }: RotaryTable): Value {
    return op.rotaryEmbedding(x, rows, cos, sin);
  }
}

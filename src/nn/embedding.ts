import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

export type EmbeddingOptions = {
  readonly weight?: Parameter;
  /**
   * The padding token, as torch's `padding_idx`: its row gets no gradient. Negative numbers count from the end; a number
   * outside of the rows is none.
   */
  readonly paddingIndex?: number | null | undefined;
};

/** y = W[ids]. Shapes: ids [...] (int64), W [rows, dimension], y [..., dimension]. Source: torch.nn.Embedding. */
export class Embedding extends Layer {
  override readonly className: string = "Embedding";
  override readonly kind = "embedding";
  readonly weight: Parameter;
  readonly rows: number;
  readonly dimension: number;
  /** The row that gets no gradient, if there is one. */
  readonly paddingIndex: number | undefined;

  constructor(rows: number, dimension: number, { weight, paddingIndex }: EmbeddingOptions = {}) {
    super();
    this.rows = rows;
    this.dimension = dimension;
    this.weight = weight ?? new Parameter([rows, dimension]);
    const index = paddingIndex == null ? -1 : paddingIndex < 0 ? rows + paddingIndex : paddingIndex;
    this.paddingIndex = index >= 0 && index < rows ? index : undefined;
  }

  override forward(ids: Value): Value {
    return op.gather(this.weight.value, ids, 0, { paddingIndex: this.paddingIndex });
  }
}

/** y = scale · W[ids]. Source: transformers BartScaledWordEmbedding. */
export class ScaledEmbedding extends Embedding {
  override readonly className: string;
  readonly scale: number;

  constructor(
    rows: number,
    dimension: number,
    { className, scale, ...options }: EmbeddingOptions & { className: string; scale: number },
  ) {
    super(rows, dimension, options);
    this.className = className;
    this.scale = scale;
  }

  override forward(ids: Value): Value {
    const rows = super.forward(ids);
    return this.scale === 1 ? rows : op.mul(rows, this.scale);
  }
}

/**
 * One learned vector per place: y = W[places + offset]. The first `offset` rows of W are never used.
 * Source: transformers BartLearnedPositionalEmbedding.
 */
export class PositionEmbedding extends Embedding {
  override readonly className: string;
  readonly offset: number;

  constructor(
    places: number,
    dimension: number,
    { className, offset }: { className: string; offset: number },
  ) {
    super(places + offset, dimension);
    this.className = className;
    this.offset = offset;
  }

  /** Shapes: places [...] (int64, from 0), result [..., dimension]. */
  override forward(places: Value): Value {
    return super.forward(this.offset === 0 ? places : op.add(places, this.offset));
  }
}

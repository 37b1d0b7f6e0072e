import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** y = W[ids]. Shapes: ids [...] (int64), W [rows, dimension], y [..., dimension]. */
export class Embedding extends Layer {
  override readonly className: string = "Embedding";
  override readonly kind = "embedding";
  readonly weight: Parameter;
  readonly rows: number;
  readonly dimension: number;

  constructor(rows: number, dimension: number, weight = new Parameter([rows, dimension])) {
    super();
    this.rows = rows;
    this.dimension = dimension;
    this.weight = weight;
  }

  override forward(ids: Value): Value {
    return op.gather(this.weight.value, ids);
  }
}

/** y = scale · W[ids]. Source: transformers BartScaledWordEmbedding. */
export class ScaledEmbedding extends Embedding {
  override readonly className: string;
  readonly scale: number;

  constructor(
    rows: number,
    dimension: number,
    { className, scale, weight }: { className: string; scale: number; weight?: Parameter },
  ) {
    super(rows, dimension, weight);
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

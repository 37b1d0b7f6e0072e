import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

/** y = W[ids]. Shapes: ids [...] (int64), W [rows, dimension], y [..., dimension]. */
export class Embedding extends Layer {
  override readonly className = "Embedding";
  override readonly kind = "embedding";
  readonly weight: Parameter;
  readonly rows: number;
  readonly dimension: number;

  constructor(rows: number, dimension: number) {
    super();
    this.rows = rows;
    this.dimension = dimension;
    this.weight = new Parameter([rows, dimension]);
  }

  override forward(ids: Value): Value {
    return op.gather(this.weight.value, ids);
  }
}

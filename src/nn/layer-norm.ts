import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

/**
 * y = (x - mean x) / √(var x + ε) · w + b over the last axis, with the variance of the population.
 * Source: Ba et al. 2016; torch.nn.LayerNorm.
 */
export class LayerNorm extends Layer {
  override readonly className = "LayerNorm";
  override readonly kind = "norm";
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly epsilon: number;

  constructor(size: number, { epsilon = 1e-5 }: { epsilon?: number } = {}) {
    super();
    this.weight = new Parameter([size]);
    this.bias = new Parameter([size]);
    this.epsilon = epsilon;
  }

  override forward(x: Value): Value {
    return op.layerNorm(x, this.weight.value, this.bias.value, this.epsilon);
  }
}

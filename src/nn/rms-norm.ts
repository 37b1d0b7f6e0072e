import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";
import { Parameter } from "./parameter.ts";

/**
 * y = x / √(mean(x²) + ε) · w over the last axis.
 * Source: Zhang & Sennrich 2019; transformers LlamaRMSNorm.
 */
export class RMSNorm extends Layer {
  override readonly className: string;
  override readonly kind = "norm";
  readonly weight: Parameter;
  readonly epsilon: number;

  constructor(size: number, { epsilon, className = "RMSNorm" }: { epsilon: number; className?: string }) {
    super();
    this.className = className;
    this.weight = new Parameter([size]);
    this.epsilon = epsilon;
  }

  override forward(x: Value): Value {
    return op.rmsNorm(x, this.weight.value, this.epsilon);
  }
}

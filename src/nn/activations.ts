import { GraphError, nearest } from "../errors.ts";
import { op, type Value } from "../graph/index.ts";
import { Layer } from "./module.ts";

/** Functions by the name that config.json gives them, with the class that stands in the reference's module tree. */
const functions: Readonly<Record<string, { className: string; apply: (x: Value) => Value }>> = {
  silu: { className: "SiLUActivation", apply: (x) => op.quickGelu(x) },
  swish: { className: "SiLU", apply: (x) => op.quickGelu(x) },
  gelu: { className: "GELUActivation", apply: (x) => op.gelu(x) },
  gelu_python: { className: "GELUActivation", apply: (x) => op.gelu(x) },
  gelu_new: { className: "NewGELUActivation", apply: (x) => op.gelu(x, "tanh") },
  gelu_fast: { className: "FastGELUActivation", apply: (x) => op.gelu(x, "tanh") },
  gelu_pytorch_tanh: { className: "GELUTanh", apply: (x) => op.gelu(x, "tanh") },
  gelu_python_tanh: { className: "GELUTanh", apply: (x) => op.gelu(x, "tanh") },
  quick_gelu: { className: "QuickGELUActivation", apply: (x) => op.quickGelu(x, 1.702) },
  relu: { className: "ReLU", apply: op.relu },
  relu2: { className: "ReLUSquaredActivation", apply: (x) => op.mul(op.relu(x), op.relu(x)) },
  sigmoid: { className: "Sigmoid", apply: op.sigmoid },
  tanh: { className: "Tanh", apply: op.tanh },
  linear: { className: "LinearActivation", apply: op.identity },
};

export const activationNames: readonly string[] = Object.keys(functions);

/** An elementwise function named as in transformers' ACT2FN. */
export class Activation extends Layer {
  override readonly className: string;
  private readonly apply: (x: Value) => Value;

  /** @throws GraphError for a name that is not implemented. */
  constructor(name: string) {
    super();
    const known = functions[name];
    if (!known)
      throw new GraphError(
        `Activation "${name}" is not implemented. Closest: ${nearest(name, activationNames).join(", ") || activationNames.join(", ")}.`,
        { code: "unknown-activation", details: { name } },
      );
    this.className = known.className;
    this.apply = known.apply;
  }

  override forward(x: Value): Value {
    return this.apply(x);
  }
}

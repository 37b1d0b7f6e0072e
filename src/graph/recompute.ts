import { type Dim, hasQuotient, shapeEquals } from "./dim.ts";
import { apply } from "./ops/build.ts";
import type { Value } from "./value.ts";

/**
 * Gives values that are cheap to compute a second time as new values, computed from what they were computed from. A
 * gradient that reads the copy does not keep the original in memory from the forward pass to the backward pass: in a gated
 * MLP, say, only the two projections stay, not the activation, the product and the norm below.
 *
 * Copied are elementwise functions of one value, products of equal shapes, norms and what blocks of attention read; sums are not, as one sum leads to the
 * next through all residual layers. What is not cheap is returned as it is. An engine must not merge the copies with the
 * originals again (ONNX Runtime: CommonSubexpressionElimination).
 * Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
 */
export function recomputation(): (value: Value) => Value {
  const copies = new Map<Value, Value>();
  const again = (value: Value): Value => {
    const copy = copies.get(value) ?? recompute(value, again);
    copies.set(value, copy);
    return copy;
  };
  return again;
}

function recompute(value: Value, again: (value: Value) => Value): Value {
  if (value.source.kind !== "node") return value;
  const { op, inputs, attributes } = value.source.node;
  const old = inputs as readonly (Value | undefined)[];
  const cheap = isCheap(value);
  if (!cheap && op !== "Reshape") return value;
  const renewed = old.map((x) => x && again(x));
  // Reshaping costs nothing, and saves nothing of itself.
  if (!cheap && renewed.every((x, i) => x === old[i])) return value;
  return apply(op, renewed as never, attributes as never);
}

function isCheap({ shape, source }: Value): boolean {
  if (source.kind !== "node") return false;
  const { op, inputs } = source.node;
  const attributes = source.node.attributes as Readonly<Record<string, unknown>>;
  switch (op) {
    case "Sigmoid":
    case "Tanh":
    case "Relu":
    case "Gelu":
    case "QuickGelu":
    case "SimplifiedLayerNormalization":
    case "LayerNormalization":
      return true;
    case "Slice": // of the keys before the end of each block of queries; parts of what is cut up once are kept instead of it
      return hasQuotient(attributes["end"] as Dim);
    case "Mul": // times a number or a row is no reason to keep the other factor instead
      return (inputs as readonly Value[]).every((x) => shapeEquals(x.shape, shape));
    default:
      return false;
  }
}

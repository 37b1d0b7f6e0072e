import { GraphError } from "../errors.ts";
import { accumulate } from "./accumulate.ts";
import { checkpointing } from "./checkpointing.ts";
import { dimEquals, formatShape, type Shape, shapeEquals } from "./dim.ts";
import { applyRule } from "./gradients.ts";
import * as op from "./ops/build.ts";
import { isFloat } from "./ops/infer-checks.ts";
import { recomputation } from "./recompute.ts";
import { unsupported, zero } from "./rules/rule.ts";
import { dependents, reachable } from "./traverse.ts";
import type { Node, Value } from "./value.ts";

/**
 * Reverse-mode gradients of a scalar: for each parameter p, a value d(loss)/dp of p's shape.
 *
 * The walk visits only what lies between the loss and the parameters, so nothing below the lowest trained layer is
 * differentiated. A parameter that the loss does not depend on gets zeros. Of the forward pass, gradients read what is
 * expensive; the rest they compute again (see recompute.ts).
 * @throws GraphError if the loss is no scalar, a parameter is no float, or an operator on the way has no derivative.
 */
export function gradients(loss: Value, parameters: readonly Value[]): Value[] {
  if (loss.rank !== 0)
    throw new GraphError(`Gradients need a scalar loss, got shape ${formatShape(loss.shape)}.`, {
      code: "loss-not-scalar",
    });
  for (const parameter of parameters)
    if (!isFloat(parameter.dtype))
      throw new GraphError(`${parameter} has no gradient: its dtype is ${parameter.dtype}.`, {
        code: "not-a-float",
      });

  const slopes = walk(new Map([[loss, op.full(1, [], loss.dtype)]]), parameters);
  return parameters.map((parameter, i) => slopes[i] ?? op.full(0, parameter.shape, parameter.dtype));
}

/**
 * Cotangents of `sources` for those of other values: Σ (∂y/∂x)ᵀ dy over the given pairs of y and dy, undefined for an x that none of
 * them depends on. Nothing below a source is visited, so sources may be values in the middle of a graph.
 */
export const pullBack = (
  given: ReadonlyMap<Value, Value>,
  sources: readonly Value[],
): (Value | undefined)[] => walk(given, sources, new Set(sources));

function walk(
  given: ReadonlyMap<Value, Value>,
  sources: readonly Value[],
  ends: ReadonlySet<Value> = new Set(),
): (Value | undefined)[] {
  const order = reachable(given.keys());
  const needed = dependents(order, sources);
  const cotangents = new Map(given);
  const { enter, again } = checkpointing(order, recomputation());
  for (const value of order.reverse()) {
    const dy = cotangents.get(value);
    if (dy === undefined || value.source.kind !== "node" || ends.has(value)) continue;
    enter(value, dy);
    propagate(value.source.node, value, dy, { needed, cotangents, again });
  }
  return sources.map((source) => cotangents.get(source));
}

/** State of one walk. */
type Walk = {
  readonly needed: ReadonlySet<Value>;
  readonly cotangents: Map<Value, Value>;
  readonly again: (value: Value) => Value;
};

function propagate(node: Node, y: Value, dy: Value, { needed, cotangents, again }: Walk): void {
  const inputs = node.inputs as readonly (Value | undefined)[];
  if (!inputs.some((x) => x !== undefined && needed.has(x))) return;
  const seen = { ...node, inputs: inputs.map((x) => x && again(x)) } as Node;
  for (const [i, cotangent] of applyRule(seen, again(y), dy).entries()) {
    const x = inputs[i];
    if (x === undefined || !needed.has(x) || cotangent === zero) continue;
    if (cotangent === unsupported)
      throw new GraphError(`${node.op} has no derivative for its input ${i} (${x}).`, {
        code: "no-derivative",
        details: { op: node.op, input: i },
      });
    const dx = sumToShape(cotangent, x.shape);
    const sum = cotangents.get(x);
    cotangents.set(x, sum === undefined ? dx : accumulate(sum, dx));
  }
}

/** Undoes broadcasting: sums over the axes along which a value of `shape` was repeated. */
export function sumToShape(x: Value, shape: Shape): Value {
  if (shapeEquals(x.shape, shape)) return x;
  const extra = x.rank - shape.length;
  const axes = x.shape.flatMap((dim, i) =>
    i < extra || (shape[i - extra] === 1 && !dimEquals(dim, 1)) ? [i] : [],
  );
  return op.reshape(op.reduceSum(x, { axes, keepdims: true }), shape);
}

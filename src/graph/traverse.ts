import type { Node, Value } from "./value.ts";

/** The values a value is computed from directly. */
export const operandsOf = (value: Value): readonly Value[] =>
  value.source.kind === "node"
    ? (value.source.node.inputs as readonly (Value | undefined)[]).filter((x): x is Value => x !== undefined)
    : [];

/**
 * Every value that the outputs depend on, in creation order, which is a topological order.
 * Whatever is not reached is dead: it is neither differentiated nor emitted.
 */
export function reachable(outputs: Iterable<Value>): Value[] {
  const seen = new Set<Value>();
  const stack = [...outputs];
  for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    stack.push(...operandsOf(value));
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** The nodes that the outputs depend on, in topological order. */
export function nodesOf(outputs: Iterable<Value>): Node[] {
  const nodes = new Set<Node>();
  for (const value of reachable(outputs)) if (value.source.kind === "node") nodes.add(value.source.node);
  return [...nodes];
}

/** Those of `values`, which are in topological order, that depend on one of `sources`, and the sources themselves. */
export function dependents(values: readonly Value[], sources: readonly Value[]): ReadonlySet<Value> {
  const found = new Set(sources);
  for (const value of values) if (operandsOf(value).some((x) => found.has(x))) found.add(value);
  return found;
}

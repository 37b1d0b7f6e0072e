import { formatShape } from "../dim.ts";
import { operandsOf } from "../traverse.ts";
import type { Value } from "../value.ts";

/**
 * For each of these values the first that is computed in the same way from the same values, as copies for the backward pass are (see
 * `recomputation`). Values come behind what they are computed from.
 */
export function originalsOf(values: Iterable<Value>): ReadonlyMap<Value, Value> {
  const originals = new Map<Value, Value>();
  const known = new Map<string, Value>();
  for (const value of values) {
    if (value.source.kind !== "node") continue;
    const { node, index } = value.source;
    const operands = operandsOf(value).map((x) => (originals.get(x) ?? x).id);
    const key = [node.op, index, operands, formatShape(value.shape), JSON.stringify(node.attributes)].join(
      " ",
    );
    const original = known.get(key) ?? value;
    known.set(key, original);
    originals.set(value, original);
  }
  return originals;
}

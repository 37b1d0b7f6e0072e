import { apply } from "./ops/build.ts";
import { reachable } from "./traverse.ts";
import type { Node, Value } from "./value.ts";

/** The value that takes another's place by now; the value itself if none does. */
export type Current = (value: Value) => Value;

/**
 * The outputs with some values replaced by others of the same shapes and dtypes, and whatever is computed from these rebuilt.
 * `replace` is asked about each computed value, operands before what is computed from them; undefined keeps its operator.
 */
export function rewrite(
  outputs: Readonly<Record<string, Value>>,
  replace: (node: Node, value: Value, current: Current) => Value | undefined,
): Record<string, Value> {
  const replaced = new Map<Value, Value>();
  const current: Current = (value) => replaced.get(value) ?? value;
  for (const value of reachable(Object.values(outputs))) {
    if (value.source.kind !== "node") continue;
    const { node } = value.source;
    const instead = replace(node, value, current) ?? rebuilt(node, current);
    if (instead) replaced.set(value, instead);
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, current(value)]));
}

/** The outputs with each key of a map replaced by its value. */
export const substitute = (
  outputs: Readonly<Record<string, Value>>,
  replacements: ReadonlyMap<Value, Value>,
): Record<string, Value> => rewrite(outputs, (_, value) => replacements.get(value));

/** A node's operator on its current operands; undefined if they are the ones it has. */
function rebuilt({ op, inputs, attributes }: Node, current: Current): Value | undefined {
  const old = inputs as readonly (Value | undefined)[];
  const renewed = old.map((x) => x && current(x));
  return renewed.some((x, i) => x !== old[i]) ? apply(op, renewed as never, attributes as never) : undefined;
}

import { apply } from "./ops/build.ts";
import { reachable } from "./traverse.ts";
import type { Value } from "./value.ts";

/** The outputs with some values replaced by others of the same shapes and dtypes. */
export function substitute(
  outputs: Readonly<Record<string, Value>>,
  replacements: ReadonlyMap<Value, Value>,
): Record<string, Value> {
  const replaced = new Map(replacements);
  const current = (value: Value): Value => replaced.get(value) ?? value;
  for (const value of reachable(Object.values(outputs))) {
    if (value.source.kind !== "node" || replacements.has(value)) continue;
    const { op, inputs, attributes } = value.source.node;
    const old = inputs as readonly (Value | undefined)[];
    const renewed = old.map((x) => x && current(x));
    if (renewed.some((x, i) => x !== old[i]))
      replaced.set(value, apply(op, renewed as never, attributes as never));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, current(value)]));
}

import { apply } from "./ops/build.ts";
import type { AttributesOf, InputsOf, OpName } from "./ops/signatures.ts";
import { reachable } from "./traverse.ts";
import type { Value } from "./value.ts";

/** Rewrites one application of an operator into others that mean the same. */
type Rewrite<Inputs, Attributes> = (inputs: Inputs, attributes: Attributes) => Value;

/** Operators to rewrite before emission, because an execution provider lacks them or gets them wrong. */
export type Lowering = { readonly [Op in OpName]?: Rewrite<InputsOf<Op>, AttributesOf<Op>> };

/** The same outputs with every operator that `lowering` names rewritten, in whatever the outputs depend on. */
export function lower(outputs: Readonly<Record<string, Value>>, lowering: Lowering): Record<string, Value> {
  const replaced = new Map<Value, Value>();
  const current = (value: Value): Value => replaced.get(value) ?? value;
  for (const value of reachable(Object.values(outputs))) {
    if (value.source.kind !== "node") continue;
    const { op, inputs, attributes } = value.source.node;
    const old = inputs as readonly (Value | undefined)[];
    const renewed = old.map((x) => x && current(x));
    const rewrite = lowering[op] as Rewrite<unknown, unknown> | undefined;
    if (rewrite) replaced.set(value, rewrite(renewed, attributes));
    else if (renewed.some((x, i) => x !== old[i]))
      replaced.set(value, apply(op, renewed as never, attributes as never));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, current(value)]));
}

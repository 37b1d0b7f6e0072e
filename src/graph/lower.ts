import type { AttributesOf, InputsOf, OpName } from "./ops/signatures.ts";
import { rewrite } from "./substitute.ts";
import type { Value } from "./value.ts";

/** Rewrites one application of an operator into others that mean the same. */
type Rewrite<Inputs, Attributes> = (inputs: Inputs, attributes: Attributes) => Value;

/** Operators to rewrite before emission, because an execution provider lacks them or gets them wrong. */
export type Lowering = { readonly [Op in OpName]?: Rewrite<InputsOf<Op>, AttributesOf<Op>> };

/** The same outputs with every operator that `lowering` names rewritten, in whatever the outputs depend on. */
export function lower(outputs: Readonly<Record<string, Value>>, lowering: Lowering): Record<string, Value> {
  return rewrite(outputs, ({ op, inputs, attributes }, _, current) => {
    const instead = lowering[op] as Rewrite<unknown, unknown> | undefined;
    const operands = (inputs as readonly (Value | undefined)[]).map((x) => x && current(x));
    return instead?.(operands, attributes);
  });
}

import type { AttributesOf, InputsOf, OpName } from "../ops/signatures.ts";
import type { Value } from "../value.ts";

/**
 * What a rule returns for one input: its cotangent, or why there is none.
 * `zero` is the true derivative (comparisons, indices); `unsupported` is an error if somebody needs it.
 */
export type Cotangent = Value | typeof zero | typeof unsupported;
export const zero = Symbol("derivative is zero");
export const unsupported = Symbol("derivative is not implemented");

export type RuleContext<Inputs, Attributes> = {
  readonly inputs: Inputs;
  readonly attributes: Attributes;
  readonly y: Value;
  readonly dy: Value;
};
export type Rule<Inputs, Attributes> = (context: RuleContext<Inputs, Attributes>) => readonly Cotangent[];
export type RuleFor<Op extends OpName> = Rule<InputsOf<Op>, AttributesOf<Op>>;

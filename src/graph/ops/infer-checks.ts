import { GraphError } from "../../errors.ts";
import type { DType } from "../../tensor/index.ts";
import { type Dim, formatShape, type Shape } from "../dim.ts";
import type { Value } from "../value.ts";
import type { AttributesOf, InputsOf, OpName } from "./signatures.ts";

/** What is known of an output before it is computed. */
export type ValueType = { readonly dtype: DType; readonly shape: Shape };
export type InferFrom<Inputs, Attributes> = (inputs: Inputs, attributes: Attributes) => ValueType;
export type Infer<Op extends OpName> = InferFrom<InputsOf<Op>, AttributesOf<Op>>;

const floats: ReadonlySet<DType> = new Set(["float64", "float32", "float16", "bfloat16"]);
export const isFloat = (dtype: DType): boolean => floats.has(dtype);

export const fail = (op: OpName, message: string): never => {
  throw new GraphError(`${op}: ${message}`, { code: "shape-mismatch", details: { op } });
};

export function requireSameDtype(op: OpName, ...values: Value[]): DType {
  const dtype = values[0]!.dtype;
  if (values.some((value) => value.dtype !== dtype))
    fail(op, `dtypes differ (${values.map((value) => value.dtype).join(", ")}); cast them first.`);
  return dtype;
}

export function requireAxis(op: OpName, axis: number, shape: Shape): number {
  if (!Number.isInteger(axis) || axis < 0 || axis >= shape.length)
    fail(op, `axis ${axis} is outside ${formatShape(shape)}.`);
  return axis;
}

/** Negative for certain: a symbolic dimension may be anything. */
export const isNegative = (dim: Dim): boolean => typeof dim === "number" && dim < 0;

export function requireIndices(op: OpName, indices: Value): void {
  if (indices.dtype !== "int64" && indices.dtype !== "int32")
    fail(op, `indices must be int64 or int32, got ${indices}.`);
}

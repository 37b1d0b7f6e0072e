import { GraphError } from "../errors.ts";
import type { DType, Tensor, TypedArrayOf } from "../tensor/index.ts";
import { tensor } from "../tensor/index.ts";
import { type Dim, formatShape, type Shape } from "./dim.ts";
import type { AttributesOf, InputsOf, OpName } from "./ops/signatures.ts";

/**
 * Bytes of a weight that stay where they are: ONNX Runtime maps the file, JavaScript never copies them.
 * A checkpoint's tensor entry is one.
 */
export type WeightStorage = {
  /** Name of the tensor in its file, for messages and for the ONNX initializer. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The file. Its bytes are read only where there is no local path, or where the weight becomes trainable. */
  readonly source: {
    /** Absolute local path. */
    readonly path?: string;
    read(start: number, end: number): Promise<Uint8Array>;
  };
  /** Offset in the file, in bytes. */
  readonly byteOffset: number;
  readonly byteLength: number;
};

/** Reads a weight's bytes. */
export const readStorage = ({ source, byteOffset, byteLength }: WeightStorage): Promise<Uint8Array> =>
  source.read(byteOffset, byteOffset + byteLength);

/** Where a value comes from. */
export type ValueSource =
  | { readonly kind: "input"; readonly name: string }
  | { readonly kind: "constant"; readonly tensor: Tensor }
  | { readonly kind: "weight"; readonly storage: WeightStorage }
  /** The size of a dimension, as an int64 scalar. */
  | { readonly kind: "dim"; readonly dim: Dim }
  | { readonly kind: "node"; readonly node: Node; readonly index: number };

/** A typed edge of the graph. Values are immutable; a graph is whatever its outputs reach. */
export class Value {
  private static created = 0;
  /** Creation order: a value's id is larger than the ids of all values it is computed from. */
  readonly id: number = Value.created++;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly source: ValueSource;

  constructor(dtype: DType, shape: Shape, source: ValueSource) {
    this.dtype = dtype;
    this.shape = shape;
    this.source = source;
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  toString(): string {
    const { source } = this;
    const what =
      source.kind === "node"
        ? source.node.op
        : source.kind === "input"
          ? `input "${source.name}"`
          : source.kind === "weight"
            ? `weight "${source.storage.name}"`
            : source.kind;
    return `${what}: ${this.dtype}${formatShape(this.shape)}`;
  }
}

/** One application of an ONNX operator. `id` grows in creation order. */
export type Node<Op extends OpName = OpName> = {
  readonly op: Op;
  readonly inputs: InputsOf<Op>;
  readonly attributes: AttributesOf<Op>;
  readonly outputs: readonly Value[];
};

/** A value that is fed at every run. */
export const input = (name: string, dtype: DType, shape: Shape): Value =>
  new Value(dtype, shape, { kind: "input", name });

/** A value known when the graph is built. Kept inline in the ONNX model: meant for small tensors. */
export const constant = (value: Tensor): Value =>
  new Value(value.dtype, value.shape, { kind: "constant", tensor: value });

/** A frozen weight, referred to where it lies. */
export const weight = (storage: WeightStorage): Value =>
  new Value(storage.dtype, storage.shape, { kind: "weight", storage });

/** The size of a (symbolic) dimension as an int64 scalar. */
export const dimValue = (dim: Dim): Value =>
  typeof dim === "number" ? scalar(dim, "int64") : new Value("int64", [], { kind: "dim", dim });

const bigintTypes: ReadonlySet<DType> = new Set(["int64", "uint64"]);
const numberTypes: ReadonlySet<DType> = new Set([
  "float64",
  "float32",
  "int32",
  "int16",
  "int8",
  "uint32",
  "uint16",
  "uint8",
  "bool",
]);

/** A constant scalar, shape []. */
export function scalar(value: number, dtype: DType = "float32"): Value {
  return constantOf([value], [], dtype);
}

/** A constant from plain numbers. @throws GraphError for dtypes that JavaScript numbers cannot fill. */
export function constantOf(
  values: readonly number[],
  shape: readonly number[],
  dtype: DType = "float32",
): Value {
  if (bigintTypes.has(dtype))
    return constant(
      tensor(
        "int64",
        shape,
        BigInt64Array.from(values, (value) => BigInt(value)),
      ),
    );
  if (!numberTypes.has(dtype))
    throw new GraphError(`Constants of dtype ${dtype} cannot be given as numbers.`, {
      code: "constant-dtype",
    });
  const arrays = {
    float64: Float64Array,
    float32: Float32Array,
    int32: Int32Array,
    int16: Int16Array,
    int8: Int8Array,
    uint32: Uint32Array,
    uint16: Uint16Array,
    uint8: Uint8Array,
    bool: Uint8Array,
  };
  const data = arrays[dtype as keyof typeof arrays].from(values) as TypedArrayOf[DType];
  return constant(tensor(dtype, shape, data));
}

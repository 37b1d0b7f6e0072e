/** Element types, named as ONNX names them in lower case; `checkpoint/` maps them to safetensors' names. */
export const dtypes = [
  "float64",
  "float32",
  "float16",
  "bfloat16",
  "float8e4m3fn",
  "float8e5m2",
  "int64",
  "int32",
  "int16",
  "int8",
  "uint64",
  "uint32",
  "uint16",
  "uint8",
  "bool",
] as const;

export type DType = (typeof dtypes)[number];

/** JavaScript storage of each dtype; half-precision and 8-bit floats are kept as raw bits. */
export type TypedArrayOf = {
  float64: Float64Array;
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float8e4m3fn: Uint8Array;
  float8e5m2: Uint8Array;
  int64: BigInt64Array;
  int32: Int32Array;
  int16: Int16Array;
  int8: Int8Array;
  uint64: BigUint64Array;
  uint32: Uint32Array;
  uint16: Uint16Array;
  uint8: Uint8Array;
  bool: Uint8Array;
};

type TypedArrayConstructor<D extends DType> = {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): TypedArrayOf[D];
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): TypedArrayOf[D];
};

export const typedArrays: { readonly [D in DType]: TypedArrayConstructor<D> } = {
  float64: Float64Array,
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float8e4m3fn: Uint8Array,
  float8e5m2: Uint8Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint64: BigUint64Array,
  uint32: Uint32Array,
  uint16: Uint16Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

/** Bytes per element. */
export const byteSize = (dtype: DType): number => typedArrays[dtype].BYTES_PER_ELEMENT;

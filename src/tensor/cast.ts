import type { DType } from "./dtype.ts";
import { float8ArrayToFloat32 } from "./float8.ts";
import {
  bfloat16ArrayToFloat32,
  float16ArrayToFloat32,
  float32ArrayToBfloat16,
  float32ArrayToFloat16,
} from "./half.ts";
import type { Tensor } from "./tensor.ts";

/** The same values as float32, each rounded to nearest. A float32 tensor is returned as it is, not copied. */
export function toFloat32(source: Tensor): Tensor<"float32"> {
  if (isFloat32(source)) return source;
  return { dtype: "float32", shape: source.shape, data: float32Values(source) };
}

/** The same values in a float dtype, rounded to nearest, ties to even. A float32 target is not copied. */
export function fromFloat32<D extends "float64" | "float32" | "float16" | "bfloat16">(
  source: Tensor<"float32">,
  dtype: D,
): Tensor<D> {
  const data = {
    float64: (values: Float32Array) => Float64Array.from(values),
    float32: (values: Float32Array) => values,
    float16: float32ArrayToFloat16,
    bfloat16: float32ArrayToBfloat16,
  }[dtype](source.data);
  return { dtype, shape: source.shape, data } as Tensor<D>;
}

const isFloat32 = (source: Tensor): source is Tensor<"float32"> => source.dtype === "float32";

function float32Values({ dtype, data }: Tensor): Float32Array {
  switch (dtype as DType) {
    case "float16":
      return float16ArrayToFloat32(data as Uint16Array);
    case "bfloat16":
      return bfloat16ArrayToFloat32(data as Uint16Array);
    case "float8e4m3fn":
    case "float8e5m2":
      return float8ArrayToFloat32(dtype as "float8e4m3fn" | "float8e5m2", data as Uint8Array);
    case "int64":
    case "uint64":
      return float32FromBigInts(data as BigInt64Array | BigUint64Array);
    default:
      return Float32Array.from(data as Exclude<typeof data, BigInt64Array | BigUint64Array>);
  }
}

/**
 * Number() rounds a 64-bit integer to a double and the store rounds that to float32. Two roundings may differ
 * from one by an ulp at ties beyond 2^53, so those are rounded to odd first, which makes the second exact.
 */
function float32FromBigInts(integers: BigInt64Array | BigUint64Array): Float32Array {
  const values = new Float32Array(integers.length);
  for (let i = 0; i < values.length; i++) {
    const integer = integers[i]!;
    const double = Number(integer);
    values[i] = Number.isSafeInteger(double) ? double : Number(stickyBits(integer));
  }
  return values;
}

/** Clears the 11 lowest bits but remembers, in the lowest bit kept, that any were set. */
function stickyBits(integer: bigint): bigint {
  const magnitude = integer < 0n ? -integer : integer;
  const kept = (magnitude >> 11n) << 11n;
  const sticky = kept === magnitude ? kept : kept | (1n << 11n);
  return integer < 0n ? -sticky : sticky;
}

import {
  byteSize,
  fromFloat32,
  numel,
  type Tensor,
  tensor,
  toFloat32,
  typedArrays,
} from "../../tensor/index.ts";
import type { KeptDType, KeptExample } from "./types.ts";

/** What is said of each tensor, in the order of their bytes. */
type Described = readonly [name: string, dtype: KeptDType, shape: readonly number[]];

/** Tensors start at multiples of this, so that they can be used where they lie. */
const ALIGNMENT = 8;
const aligned = (size: number): number => Math.ceil(size / ALIGNMENT) * ALIGNMENT;

const bytesOf = ({ data }: Tensor): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * An example as bytes: the length of what follows as uint32, JSON of every tensor's name, dtype and shape, then their
 * values (little-endian as everything JavaScript runs on), each part padded to a multiple of 8 bytes.
 *
 * A tensor that a half-precision dtype would spoil is kept in float32; see `narrowed`.
 */
export function encodeExample(values: KeptExample, dtype: KeptDType): Uint8Array<ArrayBuffer> {
  const stored = [...values].map(([name, value]) => [name, narrowed(value, dtype)] as const);
  const described = stored.map(([name, { dtype, shape }]): Described => [name, dtype, shape]);
  const header = new TextEncoder().encode(JSON.stringify(described));
  const start = aligned(4 + header.length);
  const total = stored.reduce((sum, [, { data }]) => sum + aligned(data.byteLength), start);
  const bytes = new Uint8Array(total);
  new DataView(bytes.buffer).setUint32(0, header.length, true);
  bytes.set(header, 4);
  let at = start;
  for (const [, value] of stored) {
    bytes.set(bytesOf(value), at);
    at += aligned(value.data.byteLength);
  }
  return bytes;
}

/** Bytes that an encoded example has at least: without names and shapes, and as if all tensors were narrowed. */
export function leastBytes(values: KeptExample, dtype: KeptDType): number {
  let elements = 0;
  for (const { data } of values.values()) elements += data.length;
  return elements * byteSize(dtype);
}

/**
 * What `encodeExample` made bytes of, which is not copied where it is float32. The bytes start at a multiple of 8 of their
 * buffer.
 */
export function decodeExample(bytes: Uint8Array<ArrayBuffer>): KeptExample {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const described: Described[] = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = bytes.byteOffset + aligned(4 + length);
  const values = new Map<string, Tensor<"float32">>();
  for (const [name, dtype, shape] of described) {
    const data = new typedArrays[dtype](bytes.buffer, at, numel(shape));
    at += aligned(data.byteLength);
    values.set(name, toFloat32(tensor(dtype, shape, data)));
  }
  return values;
}

/** Magnitudes from here on, as float32 bits, round to infinity: 65520 and 2^128 - 2^119. */
const overflows = { float16: 0x477f_f000, bfloat16: 0x7f7f_8000 } as const;
/** The smallest normal magnitude, as float32 bits: 2^-14 and 2^-126. */
const normals = { float16: 0x3880_0000, bfloat16: 0x0080_0000 } as const;

/**
 * The tensor in `dtype`, unless that would lose more than the dtype's precision: if a value is too large (or not finite), or
 * the largest is so small that all are subnormal or zero. So no error is larger than 2^-11 (float16) or 2^-8 (bfloat16)
 * of the largest value.
 */
export function narrowed(value: Tensor<"float32">, dtype: KeptDType): Tensor<KeptDType> {
  if (dtype === "float32") return value;
  const largest = largestMagnitude(value.data);
  const fits = largest < overflows[dtype] && (largest >= normals[dtype] || largest === 0);
  return fits ? fromFloat32(value, dtype) : value;
}

/** The bits of the largest magnitude. Without their sign, the bits of floats are ordered as the floats are, NaNs last. */
function largestMagnitude({ buffer, byteOffset, length }: Float32Array): number {
  const bits = new Int32Array(buffer, byteOffset, length);
  let largest = 0;
  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i]! & 0x7fff_ffff;
    if (magnitude > largest) largest = magnitude;
  }
  return largest;
}

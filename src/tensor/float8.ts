/** 8-bit floats, read only: 256 values each, so a table holds them all. Source: OCP OFP8, revision 1.0. */

/** Value of sign · 1.mantissa · 2^(exponent - bias), or of the subnormal where the exponent is zero. */
function finite(bits: number, mantissaBits: number, bias: number): number {
  const exponent = (bits & 0x7f) >>> mantissaBits;
  const fraction = (bits & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  const magnitude = exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
  return bits & 0x80 ? -magnitude : magnitude;
}

/** E4M3 without infinities: 0x7f and 0xff are NaN, the largest value is 448. */
const e4m3fn = (bits: number): number => ((bits & 0x7f) === 0x7f ? Number.NaN : finite(bits, 3, 7));

/** E5M2 is a float16 cut after two mantissa bits, infinities and NaNs included. */
function e5m2(bits: number): number {
  if ((bits & 0x7c) !== 0x7c) return finite(bits, 2, 15);
  if (bits & 0x03) return Number.NaN;
  return bits & 0x80 ? -Infinity : Infinity;
}

const tableOf = (decode: (bits: number) => number): Float32Array =>
  Float32Array.from({ length: 256 }, (_, bits) => decode(bits));

let tables: { readonly float8e4m3fn: Float32Array; readonly float8e5m2: Float32Array } | undefined;

/** Values of an array of 8-bit floats. */
export function float8ArrayToFloat32(dtype: "float8e4m3fn" | "float8e5m2", bytes: Uint8Array): Float32Array {
  tables ??= { float8e4m3fn: tableOf(e4m3fn), float8e5m2: tableOf(e5m2) };
  const table = tables[dtype];
  const values = new Float32Array(bytes.length);
  for (let i = 0; i < values.length; i++) values[i] = table[bytes[i]!]!;
  return values;
}

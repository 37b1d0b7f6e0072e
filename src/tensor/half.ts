/**
 * float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float32) as raw bits.
 *
 * Narrowing rounds to nearest, ties to even; too large becomes infinity, too small a subnormal or a signed
 * zero. A NaN keeps its sign and the upper bits of its payload and becomes quiet. Widening is exact.
 * float16 agrees with the F16C instructions, and so with PyTorch on x86, bit for bit, NaNs included.
 */

const floatCell = new Float32Array(1);
const bitsCell = new Uint32Array(floatCell.buffer);

/** Adding and subtracting 2^52 rounds a non-negative double below 2^52 to an integer, ties to even. */
const roundToInteger = 2 ** 52;

/** float32 bits and their magnitude -> float16 bits. */
function narrowToFloat16(bits: number, magnitude: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const rest = bits & 0x7fff_ffff;
  if (rest > 0x7f80_0000) return sign | 0x7e00 | ((rest >>> 13) & 0x1ff);
  // From 2^16 on everything is infinity; 65520 up to there rounds to it below, by the carry into the exponent.
  if (rest >= 0x4780_0000) return sign | 0x7c00;
  // Below 2^-14 the result counts in units of 2^-24, which a double holds exactly before rounding.
  if (rest < 0x3880_0000) return sign | (magnitude * 0x100_0000 + roundToInteger - roundToInteger);
  // Rebias the exponent from 127 to 15, then round away 13 bits: add just under half, plus one if odd.
  return sign | ((rest - 0x3800_0000 + 0xfff + ((rest >>> 13) & 1)) >>> 13);
}

/** float32 bits -> bfloat16 bits. */
function narrowToBfloat16(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** float16 bits -> float32 bits. */
function widenFloat16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f)
    return (sign | (mantissa === 0 ? 0x7f80_0000 : 0x7fc0_0000 | (mantissa << 13))) >>> 0;
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
  if (mantissa === 0) return sign >>> 0;
  // A subnormal, mantissa · 2^-24: its leading one becomes implicit.
  const leading = 31 - Math.clz32(mantissa);
  return (sign | ((leading + 103) << 23) | ((mantissa << (23 - leading)) & 0x7f_ffff)) >>> 0;
}

let float16Table: Uint32Array | undefined;

/** float32 bits of all 65,536 float16 values (256 KiB), built on first use. */
function float16Bits(): Uint32Array {
  if (float16Table === undefined) {
    const table = new Uint32Array(0x1_0000);
    for (let half = 0; half < table.length; half++) table[half] = widenFloat16(half);
    float16Table = table;
  }
  return float16Table;
}

/** The same memory as float32 bits. */
const bitsOf = (values: Float32Array): Uint32Array =>
  new Uint32Array(values.buffer, values.byteOffset, values.length);

/** The value of float16 `bits`. */
export function float16ToFloat32(bits: number): number {
  bitsCell[0] = widenFloat16(bits);
  return floatCell[0]!;
}

/** The float16 bits nearest to `value`, which is first rounded to float32. */
export function float32ToFloat16(value: number): number {
  floatCell[0] = value;
  return narrowToFloat16(bitsCell[0]!, Math.abs(floatCell[0]!));
}

/** The value of bfloat16 `bits`. */
export function bfloat16ToFloat32(bits: number): number {
  bitsCell[0] = bits << 16;
  return floatCell[0]!;
}

/** The bfloat16 bits nearest to `value`, which is first rounded to float32. */
export function float32ToBfloat16(value: number): number {
  floatCell[0] = value;
  return narrowToBfloat16(bitsCell[0]!);
}

/** Values of an array of float16 bits, in `values` if there is one of as many. */
export function float16ArrayToFloat32(
  halves: Uint16Array,
  values = new Float32Array(halves.length),
): Float32Array {
  const table = float16Bits();
  const bits = bitsOf(values);
  for (let i = 0; i < halves.length; i++) bits[i] = table[halves[i]!]!;
  return values;
}

/** float16 bits of an array of float32 values. */
export function float32ArrayToFloat16(values: Float32Array): Uint16Array {
  const bits = bitsOf(values);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) halves[i] = narrowToFloat16(bits[i]!, Math.abs(values[i]!));
  return halves;
}

/** Values of an array of bfloat16 bits, in `values` if there is one of as many. */
export function bfloat16ArrayToFloat32(
  halves: Uint16Array,
  values = new Float32Array(halves.length),
): Float32Array {
  const bits = bitsOf(values);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i]! << 16;
  return values;
}

/** bfloat16 bits of an array of float32 values. */
export function float32ArrayToBfloat16(values: Float32Array): Uint16Array {
  const bits = bitsOf(values);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) halves[i] = narrowToBfloat16(bits[i]!);
  return halves;
}

import type { RowCodes } from "./row-codes.ts";

/** Adding and taking away 1.5 · 2^52 leaves a double rounded to the nearest whole number, ties to even. */
const ROUND = 6755399441055744;

/**
 * Symmetric 8 bits, one scale for each output channel: scale = max |row| / 127 as float32, code = the nearest whole number to
 * weight / scale, ties to even. A row of zeros has scale 1.
 */
export const int8Codes: RowCodes = {
  codeDtype: "int8",
  codeShape: (out, inner) => [out, inner],
  scaleShape: (out) => [out],
  fits: () => true,

  scales(rows, inner, scales) {
    for (let row = 0; row < scales.length; row++) {
      let largest = 0;
      for (let i = row * inner, end = i + inner; i < end; i++) {
        const size = Math.abs(rows[i]!);
        if (size > largest) largest = size;
      }
      scales[row] = largest === 0 ? 1 : largest / 127;
    }
  },

  encode(rows, inner, scales, codes) {
    let squares = 0;
    for (let row = 0; row < scales.length; row++) {
      const scale = scales[row]!;
      for (let i = row * inner, end = i + inner; i < end; i++) {
        const value = rows[i]!;
        const code = value / scale + ROUND - ROUND;
        codes[i] = code;
        const error = value - code * scale;
        squares += error * error;
      }
    }
    return squares;
  },
};

import type { RowCodes } from "./row-codes.ts";

/** Weights that share a scale. Longer blocks take little less memory and err by a tenth more. */
const BLOCK = 32;

/**
 * Symmetric 4 bits, one scale for each 32 weights of a row: scale = max |block| / 7 as float32, code = the nearest whole number
 * to weight / scale, ties to even. Two codes are a byte, the first in its lower half, each as a signed number.
 */
export const int4Codes: RowCodes = {
  codeDtype: "uint8",
  codeShape: (out, inner) => [out, inner / 2],
  scaleShape: (out, inner) => [out, inner / BLOCK],
  fits: (inner) => inner % BLOCK === 0,

  scales(rows, _inner, scales) {
    for (let block = 0; block < scales.length; block++) {
      let largest = 0;
      for (let i = block * BLOCK, end = i + BLOCK; i < end; i++) {
        const size = Math.abs(rows[i]!);
        if (size > largest) largest = size;
      }
      scales[block] = largest === 0 ? 1 : largest / 7;
    }
  },

  encode(rows, _inner, scales, codes) {
    let squares = 0;
    for (let block = 0; block < scales.length; block++) {
      const scale = scales[block]!;
      for (let i = block * BLOCK, end = i + BLOCK; i < end; i += 2) {
        const [first, second] = [nearest(rows[i]! / scale), nearest(rows[i + 1]! / scale)];
        codes[i / 2] = (first & 15) | ((second & 15) << 4);
        squares += (rows[i]! - first * scale) ** 2 + (rows[i + 1]! - second * scale) ** 2;
      }
    }
    return squares;
  },
};

/** Adding and taking away 1.5 · 2^52 leaves a double rounded to the nearest whole number, ties to even. */
const nearest = (x: number): number => x + 6755399441055744 - 6755399441055744;

import type { DType } from "../tensor/index.ts";

/** A way to write the rows [out, in] of a weight in few bits. */
export type RowCodes = {
  readonly codeDtype: "int8" | ("uint8" & DType);
  codeShape(out: number, inner: number): readonly number[];
  scaleShape(out: number, inner: number): readonly number[];
  /** Whether rows of this length can be written so. */
  fits(inner: number): boolean;
  /** Fills in the scales of some rows. */
  scales(rows: Float32Array, inner: number, scales: Float32Array): void;
  /** Fills in the codes of some rows, whose scales are known; returns Σ (weight - code · scale)². */
  encode(rows: Float32Array, inner: number, scales: Float32Array, codes: Int8Array | Uint8Array): number;
};

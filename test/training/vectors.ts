import { readFileSync } from "node:fs";
import { type Tensor, tensor } from "../../src/tensor/index.ts";

export const readVectors = <T>(name: string): T =>
  JSON.parse(readFileSync(new URL(`../vectors/training/${name}`, import.meta.url), "utf8"));

/** Float32 tensor from 32-bit patterns. */
export const fromBits = (shape: readonly number[], bits: readonly number[]): Tensor<"float32"> =>
  tensor("float32", shape, new Float32Array(Uint32Array.from(bits).buffer));

/** 32-bit patterns, to compare bit for bit; -0 and 0 differ. */
export const toBits = ({ data }: Tensor<"float32">): number[] => [
  ...new Uint32Array(data.buffer, data.byteOffset, data.length),
];

import { type Tensor, tensor } from "../../../src/tensor/index.ts";
import type { KeptExample } from "../../../src/training/prefix-cache/index.ts";

export const float32 = (shape: readonly number[], values: readonly number[]): Tensor<"float32"> =>
  tensor("float32", shape, Float32Array.from(values));

/** Two values of an example: [tokens, 3] and a vector, told apart by `seed`. */
export const kept = (seed: number, tokens = 2): KeptExample =>
  new Map([
    [
      "kept.0",
      float32(
        [tokens, 3],
        Array.from({ length: tokens * 3 }, (_, i) => seed + i / 8),
      ),
    ],
    ["kept.1", float32([5], [seed, -seed, 0, -0, 1e-30])],
  ]);

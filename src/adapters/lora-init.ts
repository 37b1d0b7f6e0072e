import type { Parameter } from "../nn/index.ts";
import { numel, type Tensor, tensor, zeros } from "../tensor/index.ts";
import { hashText, type RandomGenerator, seededGenerator, uniform } from "../tensor/random.ts";

/** How LoRA's first factor starts; the second starts at zero unless the init is `false`. */
export type LoraInit = boolean | "gaussian";

/** A generator for one tensor: another seed or another name gives another stream. */
export const generatorFor = (seed: number, name: string): RandomGenerator =>
  seededGenerator(seed, hashText(name));

const fill = (shape: readonly number[], next: () => number): Tensor<"float32"> =>
  tensor("float32", shape, Float32Array.from({ length: numel(shape) }, next));

/**
 * Kaiming-uniform with a = √5, which is U(-1/√in, 1/√in). Shape [out, in] or [out, in, rows, columns]; what is fed into one
 * output counts, so that a kernel's `in` is the product of all axes but the first.
 * Source: torch.nn.Linear.reset_parameters; PEFT LoraLayer.reset_lora_parameters.
 */
export function kaimingUniform(shape: readonly number[], random: RandomGenerator): Tensor<"float32"> {
  const bound = 1 / Math.sqrt(numel(shape.slice(1)));
  return fill(shape, () => (2 * uniform(random) - 1) * bound);
}

/** Independent N(0, deviation²), by Box and Muller's method. */
export function normal(
  shape: readonly number[],
  deviation: number,
  random: RandomGenerator,
): Tensor<"float32"> {
  let spare: number | undefined;
  return fill(shape, () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value * deviation;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform(random)));
    const angle = 2 * Math.PI * uniform(random);
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle) * deviation;
  });
}

/** How the first factor of a linear layer or convolution starts. Its first axis is the rank. */
export function startOfA({ name, shape }: Parameter, init: LoraInit, seed: number): Tensor<"float32"> {
  const random = generatorFor(seed, name);
  return init === "gaussian" ? normal(shape, 1 / shape[0]!, random) : kaimingUniform(shape, random);
}

/** How the second factor of a linear layer or convolution starts. */
export const startOfB = ({ name, shape }: Parameter, init: LoraInit, seed: number): Tensor<"float32"> =>
  init === false ? kaimingUniform(shape, generatorFor(seed, name)) : zeros("float32", shape);

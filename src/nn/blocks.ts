import { op, type Value } from "../graph/index.ts";

/** Which blocks of the graph that is being built the backward pass computes again, and how many there are so far. */
let current: { readonly isRecomputed: (block: number) => boolean; count: number } | undefined;

/**
 * Builds a part of a graph in which the backward pass keeps of some blocks, counted from 0 in the order of computation, only what enters
 * them. Blocks are the layers of a model's towers.
 */
export function withRecomputedBlocks<T>(isRecomputed: (block: number) => boolean, build: () => T): T {
  const outer = current;
  current = { isRecomputed, count: 0 };
  try {
    return build();
  } finally {
    current = outer;
  }
}

/**
 * Computes a block that gives hidden states and something besides. Its inputs are hidden states, and what another tower made.
 */
export function inBlock<const Inputs extends readonly Value[], T extends { readonly output: Value }>(
  inputs: Inputs,
  compute: (...inputs: Inputs) => T,
): T {
  const block = current?.count ?? 0;
  if (current) current.count++;
  if (!current?.isRecomputed(block)) return compute(...inputs);
  const result = compute(...(inputs.map((x) => op.boundary(x, block)) as unknown as Inputs));
  return { ...result, output: op.boundary(result.output) };
}

/** Computes a block that gives hidden states of those before it. */
export const inBlockOf = (x: Value, compute: (x: Value) => Value): Value =>
  inBlock([x], (entered) => ({ output: compute(entered) })).output;

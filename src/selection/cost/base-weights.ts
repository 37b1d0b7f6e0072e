import type { ModuleTree } from "../tree.ts";
import type { Layout } from "./layout.ts";
import type { TrainedUnits } from "./trained.ts";

/** What frozen weights of linear layers are held as while training. */
export type BaseDtype = "fp32" | "int8" | "int4";

/** Weights that share a scale of 4 bytes in 4 bits; in 8 bits a row does. */
const BLOCK = 32;

/**
 * Bytes of the frozen weights as training holds them: 4 each, but codes and scales of what is quantised. Of a weight that the head
 * shares with an embedding there are both.
 */
export function heldBytes(
  tree: ModuleTree,
  { units }: Layout,
  trained: TrainedUnits,
  { frozenParameters, baseDtype }: { frozenParameters: number; baseDtype: BaseDtype },
): number {
  let bytes = 4 * frozenParameters;
  if (baseDtype === "fp32") return bytes;
  const tied = new Set(tree.tiedWeights.map(([path]) => path));
  for (const unit of units) {
    const { name, inputs, outputs, experts, isLinear } = unit;
    if (!isLinear || trained.of(unit).weight || (baseDtype === "int4" && inputs % BLOCK !== 0)) continue;
    const elements = experts * inputs * outputs;
    if (!tied.has(`${name}.weight`)) bytes -= 4 * elements;
    bytes += baseDtype === "int8" ? elements + 4 * experts * outputs : elements / 2 + (4 * elements) / BLOCK;
  }
  return bytes;
}

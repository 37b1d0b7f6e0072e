import { chooseKept, FLOPS_PER_BYTE, MIN_SAVED_SHARE } from "../../keeping/choose-kept.ts";
import type { Flops } from "./account.ts";

/** Something that no adapter changes: the same for an example in every epoch. */
export type Frozen = {
  readonly part: keyof Flops;
  /** Operations of its product, if it is one. */
  readonly product: number;
  /** All operations, weighed as training weighs them. */
  readonly work: number;
  /** To keep it of the batch; Infinity where an example's part of it cannot be cut out. */
  readonly bytes: number;
  readonly operands: readonly Frozen[];
  /** Something trained reads it. */
  isRead: boolean;
};

/** What elements cost that are moved or computed, in operations of a product. Source: the costs of the graph's operators. */
export const workOf = { move: 4, function: 10 };

/** What of frozen things is kept for the epochs after the first, and the operations that this saves. */
export type KeptPrefix = { readonly bytes: number; readonly saved: Flops };

/**
 * What training keeps of frozen things: the choice that it makes on its graph, made here on names and shapes.
 * @param total operations of a step.
 */
export function keptPrefix(
  things: readonly Frozen[],
  total: number,
  flopsPerByte: number = FLOPS_PER_BYTE,
): KeptPrefix {
  const kept = chooseKept(things, {
    operandsOf: ({ operands }) => operands,
    isNeeded: ({ isRead }) => isRead,
    makeCost: ({ work }) => work,
    keepCost: ({ bytes }) => bytes * flopsPerByte,
  });
  const stop = new Set(kept);
  const made = new Set<Frozen>();
  for (const thing of things.toReversed())
    if (!stop.has(thing) && (thing.isRead || made.has(thing)))
      for (const one of [thing, ...thing.operands]) made.add(one);
  const saved: Flops = { frozen: 0, trained: 0, attention: 0, head: 0 };
  for (const thing of things) if (stop.has(thing) || !made.has(thing)) saved[thing.part] += thing.product;
  const { frozen, trained, attention, head } = saved;
  if (kept.length === 0 || frozen + trained + attention + head < MIN_SAVED_SHARE * total)
    return { bytes: 0, saved: { frozen: 0, trained: 0, attention: 0, head: 0 } };
  return { bytes: kept.reduce((sum, { bytes }) => sum + bytes, 0), saved };
}

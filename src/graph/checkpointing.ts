import { after, apply } from "./ops/build.ts";
import { operandsOf } from "./traverse.ts";
import type { Value } from "./value.ts";

/** Values for the backward pass to read, which goes through a graph backwards. */
export type Checkpointing = {
  /** Tells that the cotangent `dy` of a value is known. */
  readonly enter: (value: Value, dy: Value) => void;
  /** What is to be read in a value's place. */
  readonly again: (value: Value) => Value;
};

/**
 * Gives values of blocks as new ones, computed again from what enters the block, so that of a whole block only that stays in
 * memory from the forward to the backward pass. `order` is a graph in topological order; its blocks lie behind `Boundary` nodes.
 * Values outside of blocks are what `otherwise` makes of them.
 *
 * A block's computation begins only when the cotangent of what leaves it is there (see the operator `After`): an engine that computed
 * it as early as it can would keep everything after all. Masks of dropouts are computed again from the same random bits.
 * Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
 */
export function checkpointing(order: readonly Value[], otherwise: (value: Value) => Value): Checkpointing {
  const blocks = blocksOf(order);
  const cotangents = new Map<number, Value>();
  const copies = new Map<Value, Value>();
  const copyOf = (value: Value, block: number): Value => {
    const known = copies.get(value) ?? copy(value, block);
    copies.set(value, known);
    return known;
  };
  const copy = (value: Value, block: number): Value => {
    if (value.source.kind !== "node") return value;
    const { op, inputs, attributes } = value.source.node;
    if (op === "Boundary") return after(value, cotangents.get(block)!);
    const renewed = (inputs as readonly (Value | undefined)[]).map((x) =>
      x && blocks.get(x) === block ? copyOf(x, block) : x,
    );
    return apply(op, renewed as never, attributes as never);
  };
  return {
    enter(value, dy) {
      const block = blocks.get(value);
      if (block !== undefined && !cotangents.has(block)) cotangents.set(block, dy);
    },
    again(value) {
      const block = blocks.get(value);
      return block === undefined || !cotangents.has(block) ? otherwise(value) : copyOf(value, block);
    },
  };
}

/**
 * The block that each value belongs to: it depends on what enters this one and no other, or is read there alone. What has no
 * symbolic size (weights in another form) belongs to none.
 */
function blocksOf(order: readonly Value[]): ReadonlyMap<Value, number> {
  const blocks = new Map<Value, number>();
  const readers = new Map<Value, Set<number | undefined>>();
  for (const value of order) {
    if (value.source.kind !== "node") continue;
    const { node } = value.source;
    if (node.op === "Boundary") {
      const { block } = node.attributes as { readonly block?: number };
      if (block !== undefined) blocks.set(value, block);
      continue;
    }
    const [block, ...others] = new Set(operandsOf(value).flatMap((x) => blocks.get(x) ?? []));
    if (block !== undefined && others.length === 0) blocks.set(value, block);
  }
  if (blocks.size === 0) return blocks;
  for (const value of order.toReversed()) {
    const [block, ...others] = readers.get(value) ?? [];
    const isOwn = block !== undefined && others.length === 0 && value.source.kind === "node";
    const isSymbolic = value.shape.some((dim) => typeof dim !== "number");
    if (isOwn && isSymbolic && !isBoundary(value)) blocks.set(value, block);
    for (const x of operandsOf(value)) {
      const known = readers.get(x) ?? new Set();
      known.add(isBoundary(value) ? undefined : blocks.get(value));
      readers.set(x, known);
    }
  }
  return blocks;
}

const isBoundary = ({ source }: Value): boolean => source.kind === "node" && source.node.op === "Boundary";

/** The blocks that are computed again in a graph of gradients. */
export const recomputedBlocks = (values: readonly Value[]): number[] => [
  ...new Set(
    values.flatMap(({ source }) => {
      if (source.kind !== "node" || source.node.op !== "After") return [];
      const [x] = source.node.inputs as readonly [Value, Value];
      if (x.source.kind !== "node" || x.source.node.op !== "Boundary") return [];
      return (x.source.node.attributes as { readonly block?: number }).block ?? [];
    }),
  ),
];

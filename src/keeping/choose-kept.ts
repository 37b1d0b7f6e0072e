import { FlowNetwork } from "./flow-network.ts";

/**
 * What keeping one byte of an example costs, in FLOPs that could be computed instead: hidden states are kept for a layer, but not
 * the projections of hidden states.
 */
export const FLOPS_PER_BYTE = 1000;
/** The least share of a step's FLOPs that is worth keeping anything for. */
export const MIN_SAVED_SHARE = 0.02;

/**
 * Chooses what to keep of things that are the same in every epoch. Each thing that is needed is either kept, for its `keepCost`
 * (infinite where it cannot be), or made again, for its `makeCost`, and then its operands are needed as well. The cheapest choice is a
 * minimum cut (a project selection, Picard 1976): with nodes need(v) and make(v),
 *   source → need(v), ∞, for each needed v;
 *   need(v) → make(v), keepCost(v);
 *   make(v) → sink, makeCost(v);  make(v) → need(u), ∞, for each operand u of v.
 * need(v) on the source's side means v is needed, make(v) that it is made; v is kept where an edge need → make is cut.
 * Of equally cheap choices it takes the one closest to what is needed.
 * @param things operands before what is made of them; operands that are not among them cost nothing.
 * @returns what to keep, in that order.
 */
export function chooseKept<T>(
  things: Iterable<T>,
  {
    operandsOf,
    isNeeded,
    makeCost,
    keepCost,
  }: {
    operandsOf: (thing: T) => readonly T[];
    isNeeded: (thing: T) => boolean;
    makeCost: (thing: T) => number;
    keepCost: (thing: T) => number;
  },
): T[] {
  const network = new FlowNetwork();
  const [source, sink] = [network.addNode(), network.addNode()];
  const nodes = new Map<T, { need: number; make: number }>();
  for (const thing of things) {
    const keep = Math.round(keepCost(thing));
    const need = network.addNode();
    const make = keep === Infinity ? need : network.addNode();
    nodes.set(thing, { need, make });
    if (make !== need) network.connect(need, make, keep);
    network.connect(make, sink, Math.round(makeCost(thing)));
    for (const x of operandsOf(thing)) if (nodes.has(x)) network.connect(make, nodes.get(x)!.need, Infinity);
    if (isNeeded(thing)) network.connect(source, need, Infinity);
  }
  const { sourceSide } = network.minimumCut(source, sink);
  return [...nodes].flatMap(([thing, { need, make }]) =>
    sourceSide[need] === 1 && sourceSide[make] === 0 ? [thing] : [],
  );
}

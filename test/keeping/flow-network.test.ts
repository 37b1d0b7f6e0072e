import fc from "fast-check";
import { expect, test } from "vitest";
import { FlowNetwork } from "../../src/keeping/flow-network.ts";

type Edge = readonly [from: number, to: number, capacity: number];

function networkOf(count: number, edges: readonly Edge[]): FlowNetwork {
  const network = new FlowNetwork();
  for (let i = 0; i < count; i++) network.addNode();
  for (const edge of edges) network.connect(...edge);
  return network;
}

/** Capacity of all edges that leave a set of nodes. */
const leaving = (inside: (node: number) => boolean, edges: readonly Edge[]): number =>
  edges.reduce((sum, [from, to, capacity]) => sum + (inside(from) && !inside(to) ? capacity : 0), 0);

test("a network of a textbook", () => {
  // Cormen et al., Introduction to Algorithms, figure 26.1: the flow is 23.
  const edges: Edge[] = [
    [0, 1, 16],
    [0, 2, 13],
    [1, 3, 12],
    [2, 1, 4],
    [2, 4, 14],
    [3, 2, 9],
    [3, 5, 20],
    [4, 3, 7],
    [4, 5, 4],
  ];
  const { capacity, sourceSide } = networkOf(6, edges).minimumCut(0, 5);
  expect(capacity).toBe(23);
  expect([...sourceSide]).toEqual([1, 1, 1, 0, 1, 0]);
});

test("nodes without a way to the sink are on the source's side, edges without capacity no way", () => {
  const edges: Edge[] = [
    [0, 2, Infinity],
    [0, 3, 0],
    [3, 1, 5],
  ];
  const { capacity, sourceSide } = networkOf(4, edges).minimumCut(0, 1);
  expect(capacity).toBe(0);
  expect([...sourceSide]).toEqual([1, 0, 1, 0]);
});

test("no set of nodes around the source is left at less capacity, and none smaller at as little", () => {
  const count = 6;
  const node = fc.nat(count - 1);
  const capacities = fc.oneof(
    { weight: 5, arbitrary: fc.nat(9) },
    { weight: 1, arbitrary: fc.constant(Infinity) },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(node, node, capacities), { maxLength: 18 }), (drawn) => {
      // A way of infinite capacity has no cut.
      const edges = drawn.map(([from, to, c]): Edge => [from, to, to === 1 ? Math.min(c, 7) : c]);
      const { capacity, sourceSide } = networkOf(count, edges).minimumCut(0, 1);
      const found = (i: number): boolean => sourceSide[i] === 1;
      expect(found(0) && !found(1)).toBe(true);
      expect(leaving(found, edges)).toBe(capacity);
      for (let set = 0; set < 2 ** (count - 2); set++) {
        const inside = (i: number): boolean => i === 0 || (i > 1 && ((set >> (i - 2)) & 1) === 1);
        const other = leaving(inside, edges);
        expect(other).toBeGreaterThanOrEqual(capacity);
        if (other === capacity) for (let i = 0; i < count; i++) if (found(i)) expect(inside(i)).toBe(true);
      }
    }),
    { numRuns: 500 },
  );
});

test("a way of thousands of edges", () => {
  const length = 20_000;
  const edges = Array.from({ length }, (_, i): Edge => [i, i + 1, i === 777 ? 3 : 5]);
  const { capacity, sourceSide } = networkOf(length + 1, edges).minimumCut(0, length);
  expect(capacity).toBe(3);
  expect(sourceSide.reduce((sum, side) => sum + side)).toBe(778);
});

import { describe, expect, test } from "vitest";
import {
  gradients,
  input,
  nodesOf,
  op,
  peakBytes,
  reachable,
  recomputedBlocks,
  symbol,
  type Value,
} from "../../src/graph/index.ts";
import { evaluate, Numbers, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const rows = symbol("rows");

/** x ← x + tanh(mask(x w)) w with weights and a mask of its own in each block, and the weights' gradients. */
function chain(blocks: number, isRecomputed: (block: number) => boolean): Record<string, Value> {
  const weights = Array.from({ length: blocks }, (_, block) => input(`w${block}`, "float32", [4, 4]));
  const noise = input("noise", "float32", [rows, 1]);
  let x = input("x", "float32", [rows, 4]);
  for (let block = 0; block < blocks; block++) {
    const w = weights[block]!;
    const marked = isRecomputed(block);
    const entered = marked ? op.boundary(x, block) : x;
    const keep = op.greaterOrEqual(op.mul(noise, block + 1), 0.5);
    const dropped = op.where(keep, op.matmul(entered, w), 0);
    const output = op.add(entered, op.gemm(op.tanh(dropped), w));
    x = marked ? op.boundary(output) : output;
  }
  const loss = op.reduceSum(op.mul(x, x), { axes: [0, 1], keepdims: false });
  const slopes = gradients(loss, weights).map((slope, block) => [`dw${block}`, slope] as const);
  return { loss, ...Object.fromEntries(slopes) };
}

describe("blocks that are computed again", () => {
  const feeds = {
    x: tensorOf(new Numbers(1).fill([6, 4], -1, 1), [6, 4], "float32"),
    ...Object.fromEntries(
      [0, 1, 2].map((block) => [
        `w${block}`,
        tensorOf(new Numbers(block).fill([4, 4], -0.5, 0.5), [4, 4], "float32"),
      ]),
    ),
    noise: tensorOf(new Numbers(3).fill([6, 1], 0, 1), [6, 1], "float32"),
  };

  test.each([[() => true], [(block: number) => block < 2], [(block: number) => block !== 1]])(
    "give the same loss and gradient, %s",
    async (isRecomputed) => {
      const plain = await evaluate(
        engine(),
        chain(3, () => false),
        feeds,
      );
      const again = await evaluate(engine(), chain(3, isRecomputed), feeds);
      expect(Object.keys(plain)).toHaveLength(4);
      for (const name of Object.keys(plain))
        expect(numbersOf(again[name]!), name).toEqual(numbersOf(plain[name]!));
    },
  );

  test("nothing of a block but what enters it is read after the loss, and not before its output's gradient is there", () => {
    const { loss, ...slopes } = chain(3, () => true) as { loss: Value };
    const dw = Object.values<Value>(slopes);
    const forward = new Set(reachable([loss]));
    const backward = nodesOf(dw).filter(({ outputs }) => !forward.has(outputs[0]!));
    const read = new Set(
      backward.flatMap(({ inputs }) =>
        (inputs as readonly Value[]).filter((x) => forward.has(x) && x.source.kind === "node"),
      ),
    );
    const ops = [...read].map(({ source }) => (source as { node: { op: string } }).node.op);
    expect(ops.sort()).toEqual(["Boundary", "Boundary", "Boundary", "Boundary"]); // three enter, the last leaves
    const masks = backward.filter(({ op: name }) => name === "GreaterOrEqual");
    expect(masks).toHaveLength(3);
    const waits = backward.filter(({ op: name }) => name === "After");
    expect(waits).toHaveLength(3);
    expect(recomputedBlocks(reachable(dw)).sort()).toEqual([0, 1, 2]);
  });

  test("take less memory", () => {
    const bytes = (count: number): number =>
      peakBytes(
        chain(8, (block) => block < count),
        { rows: 1000 },
      );
    expect(bytes(8)).toBeLessThan(0.7 * bytes(0));
    for (let count = 0; count < 8; count++) expect(bytes(count + 1)).toBeLessThanOrEqual(bytes(count));
  });
});

describe("the peak of a graph's memory", () => {
  const x = input("x", "float32", [rows, 4]);
  const bytes = (outputs: Record<string, Value>): number => peakBytes(outputs, { rows: 10 });

  test("is what is there at the same time", () => {
    const y = op.gemm(x, input("w", "float32", [4, 8])); // 320 bytes
    const z = op.gemm(y, input("v", "float32", [8, 4])); // 160
    expect(bytes({ y })).toBe(320);
    expect(bytes({ z })).toBe(480);
    expect(bytes({ z: op.exp(z) })).toBe(480); // in z's place
    expect(bytes({ z: op.mul(z, op.reshape(z, [rows, 4])) })).toBe(480);
    const sum = op.reduceSum(y, { axes: [1] }); // 40
    expect(bytes({ both: op.add(op.mul(y, sum), y) })).toBe(320 + 40 + 320);
  });

  test("leaves out weights in another form", () => {
    const w = op.transpose(op.full(1, [4, 100]), [1, 0]);
    expect(bytes({ y: op.matmul(x, op.transpose(w, [1, 0])) })).toBe(4000);
  });
});

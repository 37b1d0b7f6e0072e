import { expect, test } from "vitest";
import { input, lower, nodesOf, op, reachable, weight } from "../../src/graph/index.ts";
import { lowerings } from "../../src/runtime/lowerings.ts";

test.each(["cpu", "webgpu"] as const)(
  "%s: a weight of 4 bits becomes float32 after what it multiplies",
  (device) => {
    const x = op.relu(input("x", "float32", [3, 64]));
    const source = { read: async () => new Uint8Array(160) };
    const codes = weight({
      name: "codes",
      dtype: "uint8",
      shape: [5, 32],
      source,
      byteOffset: 0,
      byteLength: 160,
    });
    const scales = input("scales", "float32", [5, 2]);
    const y = op.quantizedMatMul(x, codes, scales, { transB: true, rounded: false });
    const outputs = lower({ y }, lowerings[device]);
    const products = nodesOf(Object.values(outputs)).filter((node) => node.op === "Gemm");
    expect(products).toHaveLength(1);
    const [, made] = products[0]!.inputs as readonly [typeof x, typeof x];
    expect(reachable([made])).toContain(x);
  },
);

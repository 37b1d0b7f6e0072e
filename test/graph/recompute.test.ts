import { describe, expect, test } from "vitest";
import {
  gradients,
  input,
  type Node,
  nodesOf,
  type OpName,
  op,
  type Shape,
  type Value,
} from "../../src/graph/index.ts";

const float = (name: string, shape: Shape): Value => input(name, "float32", shape);
const total = (x: Value): Value => op.reduceSum(x, { axes: x.shape.map((_, i) => i), keepdims: false });

/** Operators of the forward pass whose results the gradient's own nodes read: what a run keeps in memory. */
function kept(loss: Value, parameter: Value): OpName[] {
  const forward = new Set(nodesOf([loss]));
  const backward = nodesOf(gradients(loss, [parameter])).filter((node) => !forward.has(node));
  const read = backward.flatMap((node) =>
    (node.inputs as readonly (Value | undefined)[]).flatMap((x) =>
      x?.source.kind === "node" && forward.has(x.source.node) ? [x.source.node] : [],
    ),
  );
  return [...new Set<Node>(read)].map((node) => node.op).sort();
}

describe("what a gradient keeps of the forward pass", () => {
  const x = float("x", [8, 4]);
  const [up, down, a] = [float("up", [6, 4]), float("down", [4, 6]), float("a", [6, 4])];
  const gate = () => op.gemm(x, a, { transB: true });

  test("of a gated MLP the two projections: activation and product are computed again", () => {
    const g = gate();
    const activated = op.mul(op.mul(g, op.sigmoid(g)), op.gemm(x, up, { transB: true }));
    const loss = total(op.gemm(activated, down, { transB: true }));
    expect(kept(loss, down)).toEqual(["Gemm", "Gemm"]);
    expect(kept(loss, a)).toEqual(["Gemm", "Gemm"]);
  });

  test("a norm is computed again from its input, also through a Reshape", () => {
    const rows = op.reshape(op.rmsNorm(gate(), float("scale", [6]), 1e-6), [2, 4, 6]);
    const loss = total(op.gemm(op.reshape(rows, [8, 6]), down, { transB: true }));
    expect(kept(loss, down)).toEqual(["Gemm"]);
  });

  test("sums and softmaxes stay", () => {
    const sum = op.add(gate(), op.gemm(x, up, { transB: true }));
    expect(kept(total(op.gemm(sum, down, { transB: true })), down)).toEqual(["Add"]);
    expect(kept(total(op.gemm(op.softmax(gate()), down, { transB: true })), down)).toEqual(["Softmax"]);
  });

  test("a product with a number or a row stays: its other factor is not smaller", () => {
    for (const factor of [2, float("row", [6])])
      expect(kept(total(op.gemm(op.mul(gate(), factor), down, { transB: true })), down)).toEqual(["Mul"]);
  });

  test("each value is computed again once, however many gradients read it", () => {
    const g = gate();
    const activated = op.sigmoid(g);
    const other = float("other", [4, 6]);
    const loss = op.add(
      total(op.gemm(activated, down, { transB: true })),
      total(op.gemm(activated, other, { transB: true })),
    );
    const sigmoids = nodesOf([loss, ...gradients(loss, [a, down, other])]).filter(
      (node) => node.op === "Sigmoid",
    );
    expect(sigmoids).toHaveLength(2); // one in each pass
  });
});

test("of a layer norm after a residual the sum is kept, not the norm", () => {
  const [x, w, up] = [float("x", [8, 4]), float("w", [4]), float("up", [6, 4])];
  const residual = op.add(x, op.gemm(x, float("a", [4, 4]), { transB: true }));
  const loss = total(op.gemm(op.layerNorm(residual, w, w, 1e-5), up, { transB: true }));
  expect(kept(loss, up)).toEqual(["Add"]);
});

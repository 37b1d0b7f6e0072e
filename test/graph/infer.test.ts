import { describe, expect, test } from "vitest";
import { input, op, type Shape, symbol, type Value } from "../../src/graph/index.ts";
import type { DType, dtypes } from "../../src/tensor/index.ts";

const value = (shape: Shape, dtype: DType = "float32"): Value => input("x", dtype, shape);
const [batch, sequence] = [symbol("batch"), symbol("sequence")];

/** What each wrong graph is answered: the operator, the shapes or dtypes, the rule. */
const mistakes: [build: () => unknown, message: string][] = [
  [() => op.add(value([2, 3]), value([4])), "Add: shapes [2, 3] and [4] do not broadcast."],
  [() => op.mul(value([batch]), value([sequence])), "Mul: shapes [batch] and [sequence] do not broadcast."],
  [
    () => op.div(value([2]), value([2], "float64")),
    "Div: dtypes differ (float32, float64); cast them first.",
  ],
  [() => op.exp(value([2], "int64")), 'Exp: needs a float input, got input "x": int64[2].'],
  [() => op.gelu(value([2], "int32")), 'Gelu: needs a float input, got input "x": int32[2].'],
  [() => op.less(value([2]), value([3])), "Less: shapes [2] and [3] do not broadcast."],
  [() => op.and(value([2]), value([2])), "And: needs truth values, got float32."],
  [() => op.not(value([2])), 'Not: needs a truth value, got input "x": float32[2].'],
  [() => op.matmul(value([2, 3]), value([4, 5])), "MatMul: inner sizes differ: [2, 3] times [4, 5]."],
  [() => op.matmul(value([3]), value([3, 5])), "MatMul: needs two axes or more, got"],
  [() => op.matmul(value([2, 1, 3]), value([3, 3, 1])), "MatMul: shapes [2] and [3] do not broadcast."],
  [() => op.gemm(value([2, 3, 1]), value([3, 4])), "Gemm: needs two axes, got"],
  [
    () => op.gemm(value([3, 2]), value([4, 5]), { transA: true, transB: true }),
    "Gemm: inner sizes differ: [3, 2]ᵀ times [4, 5]ᵀ.",
  ],
  [
    () => op.gemm(value([2, 3]), value([3, 4]), { c: value([3]) }),
    "Gemm: shapes [2, 4] and [3] do not broadcast.",
  ],
  [
    () => op.gemm(value([2, 3]), value([3, 1]), { c: value([4]) }),
    "Gemm: c [4] does not broadcast to [2, 1].",
  ],
  [() => op.softmax(value([2]), 1), "Softmax: axis 1 is outside [2]."],
  [() => op.reshape(value([2, 3]), [4, 2]), "Reshape: [2, 3] and [4, 2] differ in size."],
  [() => op.reshape(value([2, 3]), [4, -1]), "Reshape: [2, 3] and [4, -1] differ in size."],
  [
    () => op.reshape(value([batch, 3]), [sequence, -1]),
    "Reshape: [batch, 3] and [sequence, -1] differ in size.",
  ],
  [() => op.transpose(value([2, 3]), [0, 0]), "Transpose: [0,0] is no permutation of the axes of [2, 3]."],
  [() => op.expand(value([2, 3]), [2, 1]), "Expand: [2, 3] does not expand to [2, 1]."],
  [() => op.concat([value([2, 3]), value([3, 3])], 1), "Concat: [2, 3] and [3, 3] differ outside axis 1."],
  [() => op.slice(value([2, 3]), 1, 1, 4), "Slice: 1 to 4 is no range of axis 1 of [2, 3]."],
  [() => op.slice(value([2, 3]), 1, -2, 3), "Slice: -2 to 3 is no range of axis 1 of [2, 3]."],
  [() => op.slice(value([batch]), 0, 3, 2), "Slice: 3 to 2 is no range of axis 0 of [batch]."],
  [() => op.pad(value([2]), 0, -1, 0), "Pad: cannot add -1 before and 0 after."],
  [() => op.reduceSum(value([2, 3]), { axes: [2] }), "ReduceSum: axis 2 is outside [2, 3]."],
  [() => op.reduceMax(value([2, 3]), { axes: [1, -1] }), "ReduceMax: axes [1,1] must be distinct"],
  [() => op.gather(value([2]), value([2])), "Gather: indices must be int64 or int32, got"],
  [() => op.gather(value([2]), value([], "int64"), 1), "Gather: axis 1 is outside [2]."],
  [
    () => op.gatherElements(value([2, 3]), value([4, 1], "int64"), 1),
    "GatherElements: [4, 1] does not index axis 1 of [2, 3].",
  ],
  [
    () => op.scatterElementsAdd(value([2, 3]), value([2], "int64"), value([2]), 1),
    "ScatterElements: [2] does not index axis 1 of [2, 3].",
  ],
  [
    () => op.scatterElementsAdd(value([2, 3]), value([2, 1], "int64"), value([2, 2]), 1),
    "ScatterElements: updates [2, 2] and indices [2, 1] differ.",
  ],
  [
    () => op.scatterRowsAdd(value([4, 3]), value([2], "int64"), value([2, 2])),
    "ScatterND: updates have shape [2, 2], expected [2, 3].",
  ],
  [
    () => op.apply("ScatterND", [value([4]), value([2], "int64"), value([2])], {}),
    "ScatterND: indices must end in an axis of 1, got [2].",
  ],
  [() => op.where(value([2]), value([2]), 0), "Where: the condition is float32, not bool."],
  [
    () => op.rmsNorm(value([2, 3]), value([2]), 1e-5),
    "SimplifiedLayerNormalization: scale [2] does not fit [2, 3].",
  ],
  [
    () => op.rotaryEmbedding(value([2, 3, 4]), value([2, 3], "int64"), value([9, 2]), value([9, 2])),
    "RotaryEmbedding: needs [batch, heads, sequence, size], got [2, 3, 4].",
  ],
  [
    () => op.rotaryEmbedding(value([1, 2, 3, 4]), value([3], "int64"), value([9, 2]), value([9, 2])),
    "RotaryEmbedding: positions are [3], expected [1, 3].",
  ],
  [
    () => op.rotaryEmbedding(value([1, 2, 3, 4]), value([1, 3], "int64"), value([9, 2]), value([9, 4])),
    "RotaryEmbedding: the table [9, 4] does not fit a head size of 4.",
  ],
];

describe("a wrong graph is refused when it is built", () => {
  test.each(mistakes.map(([build, message]) => [message, build] as const))("%s", (message, build) => {
    expect(build).toThrow(
      expect.objectContaining({ name: "GraphError", message: expect.stringContaining(message) }),
    );
  });
});

describe("builders", () => {
  test("give back the value itself where nothing changes", () => {
    const x = value([batch, 3]);
    for (const same of [
      op.reshape(x, [batch, -1]),
      op.reshape(x, [-1, 3]),
      op.expand(x, [batch, 3]),
      op.cast(x, "float32"),
      op.concat([x], 0),
      op.reduceSum(x, { axes: [] }),
    ])
      expect(same).toBe(x);
  });

  test("an open dimension takes what is left, symbols included", () => {
    expect(op.reshape(value([batch, sequence, 6]), [-1, 2]).shape.map(String)).toEqual([
      "3*batch*sequence",
      "2",
    ]);
  });

  test("a number takes the dtype of the other operand", () => {
    for (const dtype of ["float64", "int64", "int32"] as const satisfies (typeof dtypes)[number][])
      expect(op.mul(value([2], dtype), 2).dtype).toBe(dtype);
    expect(() => op.mul(value([2], "bfloat16"), 2)).toThrow("Constants of dtype bfloat16");
  });

  test("values print what they are", () => {
    expect(String(value([batch, 3]))).toBe('input "x": float32[batch, 3]');
    expect(String(op.exp(value([])))).toBe("Exp: float32[]");
  });
});

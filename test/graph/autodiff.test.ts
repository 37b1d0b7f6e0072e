import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  constantOf,
  dimAdd,
  gradients,
  input,
  nodesOf,
  op,
  type Shape,
  symbol,
  type Value,
} from "../../src/graph/index.ts";
import { evaluate, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 2 });
const float = (name: string, shape: Shape): Value => input(name, "float32", shape);
const total = (x: Value): Value => op.reduceSum(x, { axes: x.shape.map((_, i) => i), keepdims: false });
const operators = (...outputs: Value[]): string[] => nodesOf(outputs).map((node) => node.op);

describe("accumulation", () => {
  test("a value used three times gets the sum of its cotangents", async () => {
    // d/dx (x² + 3x + e^x) = 2x + 3 + e^x
    const x = float("x", []);
    const [dx] = gradients(op.add(op.add(op.mul(x, x), op.mul(x, 3)), op.exp(x)), [x]);
    const { dx: result } = await evaluate(engine(), { dx: dx! }, { x: tensorOf([0.5], [], "float32") });
    expect(result!.data[0]).toBeCloseTo(1 + 3 + Math.exp(0.5), 5);
  });

  test("a parameter between two others passes its gradient on", async () => {
    const x = float("x", []);
    const y = op.mul(x, x);
    const [dx, dy] = gradients(op.mul(y, 3), [x, y]);
    const results = await evaluate(engine(), { dx: dx!, dy: dy! }, { x: tensorOf([2], [], "float32") });
    expect([results["dx"]!.data[0], results["dy"]!.data[0]]).toEqual([12, 3]);
  });

  test("rows gathered from what is used otherwise too are added in place: no zeros, no Add", async () => {
    const table = float("table", [4, 2]);
    const rows = op.gather(table, constantOf([1, 1, 3], [3], "int64"));
    const [slope] = gradients(op.add(total(op.mul(rows, 2)), total(table)), [table]);
    expect(operators(slope!).filter((name) => name === "ScatterND" || name === "Add")).toEqual(["ScatterND"]);
    const { slope: result } = await evaluate(engine(), { slope: slope! });
    expect(numbersOf(result!)).toEqual([1, 1, 5, 5, 1, 1, 3, 3]);
  });

  test("two gathers share one buffer of zeros, in whatever order they come", async () => {
    const table = float("table", [3]);
    const pick = (...indices: number[]) => op.gather(table, constantOf(indices, [indices.length], "int64"));
    const element = op.gatherElements(table, constantOf([2], [1], "int64"), 0);
    const [slope] = gradients(op.add(op.add(total(pick(0, 1)), total(pick(1))), total(element)), [table]);
    expect(operators(slope!).filter((name) => name === "Add")).toEqual([]);
    const { slope: result } = await evaluate(engine(), { slope: slope! });
    expect(numbersOf(result!)).toEqual([1, 2, 1]);
  });

  test("rows that have been added to one use are not added again to the next", async () => {
    const table = float("table", [3]);
    const uses = [
      () => total(op.gather(table, constantOf([1], [1], "int64"))),
      () => total(op.mul(table, 10)),
      () => total(op.mul(table, 100)),
    ];
    for (const order of [
      [0, 1, 2],
      [1, 0, 2],
      [1, 2, 0],
    ]) {
      const loss = order.map((i) => uses[i]!()).reduce(op.add);
      const { slope } = await evaluate(engine(), { slope: gradients(loss, [table])[0]! });
      expect(numbersOf(slope!)).toEqual([110, 111, 110]);
    }
  });

  test.each([
    ["all parts, in order", [0, 1, 2], ["Concat"]],
    ["all parts, from behind", [2, 1, 0], ["Concat"]],
    ["the parts behind the first", [2, 1], ["Concat", "Pad"]],
    ["the outer parts", [0, 2], ["Pad", "Pad", "Add"]],
    ["a part twice", [1, 1], ["Pad", "Pad", "Add"]],
  ] as const)("of a value that was cut up: %s", async (_, used, expected) => {
    const x = float("x", [2, 6]);
    const bounds = [0, 1, 4, 6];
    const terms = used.map((part, i) =>
      total(op.mul(op.exp(op.slice(x, 1, bounds[part]!, bounds[part + 1]!)), i + 1)),
    );
    const loss = terms.reduce(op.add);
    const [dx] = gradients(loss, [x]);
    const forward = new Set(nodesOf([loss]));
    const added = nodesOf([dx!]).filter((node) => !forward.has(node));
    expect(added.map((node) => node.op).filter((name) => ["Pad", "Concat", "Add"].includes(name))).toEqual(
      expected,
    );
    const { dx: result } = await evaluate(
      engine(),
      { dx: dx! },
      { x: tensorOf([0, 1, 2, 3, 4, 5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5], [2, 6], "float32") },
    );
    const slopes = [0, 1, 1, 1, 2, 2].map((part) =>
      used.reduce<number>((sum, other, i) => sum + (other === part ? i + 1 : 0), 0),
    );
    for (const [i, value] of numbersOf(result!).entries())
      expect(value).toBeCloseTo(slopes[i % 6]! * Math.exp((i % 6) + (i < 6 ? 0 : 0.5)), 3);
  });

  test("equal maxima share the cotangent, as in torch.amax", async () => {
    const x = float("x", [2, 3]);
    const [dx] = gradients(total(op.mul(op.reduceMax(x), 6)), [x]);
    const feeds = { x: tensorOf([1, 4, 4, 2, 2, 2], [2, 3], "float32") };
    expect(numbersOf((await evaluate(engine(), { dx: dx! }, feeds))["dx"]!)).toEqual([0, 3, 3, 2, 2, 2]);
  });

  test("a scatter into something other than zeros is added as usual", async () => {
    const [data, updates] = [float("data", [3]), float("updates", [2])];
    const scattered = op.scatterElementsAdd(data, constantOf([0, 0], [2], "int64"), updates, 0);
    const [dData, dUpdates] = gradients(op.add(total(op.mul(scattered, scattered)), total(data)), [
      data,
      updates,
    ]);
    const results = await evaluate(
      engine(),
      { dData: dData!, dUpdates: dUpdates! },
      { data: tensorOf([1, 2, 3], [3], "float32"), updates: tensorOf([4, 5], [2], "float32") },
    );
    expect(numbersOf(results["dData"]!)).toEqual([21, 5, 7]);
    expect(numbersOf(results["dUpdates"]!)).toEqual([20, 20]);
  });

  test("many repeated rows on several threads lose no update", async () => {
    // ONNX Runtime's ScatterND adds without a lock; with it some of these runs lose updates.
    const [rows, width, count] = [8, 64, 20_000];
    const table = float("table", [rows, width]);
    const indices = input("indices", "int64", [count]);
    const [slope] = gradients(total(op.gather(table, indices)), [table]);
    const session = await engine().createSession({ slope: slope! });
    const feed = tensorOf(
      Array.from({ length: count }, (_, i) => i % rows),
      [count],
      "int64",
    );
    for (let run = 0; run < 10; run++) {
      const { outputs } = await session.run({ indices: feed });
      expect(new Set(numbersOf(outputs["slope"]!))).toEqual(new Set([count / rows]));
    }
    await session.dispose();
  });
});

describe("what is not differentiated", () => {
  const hidden = (): { layers: Value[]; loss: Value; x: Value } => {
    const x = float("x", [2, 3]);
    const layers = [0, 1, 2].map((i) => float(`w${i}`, [3, 3]));
    return { x, layers, loss: total(layers.reduce((h, w) => op.tanh(op.matmul(h, w)), x)) };
  };

  test("emits no backward operator below the lowest trained layer", () => {
    const { layers, loss } = hidden();
    const [top] = gradients(loss, [layers[2]!]);
    // Three products forward, and one for the gradient of the weight: none for that of its input.
    expect(operators(loss, top!).filter((name) => name === "MatMul" || name === "Gemm")).toHaveLength(4);
    const both = gradients(loss, [layers[2]!, layers[1]!]);
    expect(operators(loss, ...both).filter((name) => name === "MatMul" || name === "Gemm")).toHaveLength(6);
  });

  test("the gradient of a weight sums over the batch within one product", () => {
    const [x, w] = [float("x", [symbol("batch"), symbol("sequence"), 3]), float("w", [3, 4])];
    const [dw] = gradients(total(op.matmul(x, w)), [w]);
    const products = operators(dw!).filter((name) => ["MatMul", "Gemm", "ReduceSum"].includes(name));
    expect(products).toEqual(["Gemm"]);
  });

  test("a gradient that is asked for costs nothing of the others", () => {
    const { layers, loss, x } = hidden();
    const [, , , dx] = gradients(loss, [...layers, x]);
    const alone = gradients(loss, [x]);
    expect(operators(dx!).sort()).toEqual(operators(alone[0]!).sort());
  });

  test("a parameter that the loss does not use gets zeros of its shape and dtype", async () => {
    const x = float("x", []);
    const unused = input("unused", "float64", [2, 3]);
    const [, slope] = gradients(op.mul(x, x), [x, unused]);
    const { slope: result } = await evaluate(engine(), { slope: slope! });
    expect(result).toEqual(tensorOf([0, 0, 0, 0, 0, 0], [2, 3], "float64"));
  });

  test("a loss that only compares has zeros as gradient, and no backward operator", () => {
    const x = float("x", [3]);
    const [slope] = gradients(total(op.cast(op.greater(x, 0), "float32")), [x]);
    expect(operators(slope!)).toEqual(["Expand"]);
  });

  test("the loss itself has gradient 1", async () => {
    const x = float("x", []);
    const loss = op.mul(x, 2);
    const { slope } = await evaluate(engine(), { slope: gradients(loss, [loss])[0]! });
    expect(slope!.data[0]).toBe(1);
  });
});

describe("errors", () => {
  const x = float("x", [2, 3]);

  test("a loss that is no scalar", () => {
    expect(() => gradients(x, [x])).toThrow("Gradients need a scalar loss, got shape [2, 3].");
  });

  test("a parameter that is no float", () => {
    expect(() => gradients(total(x), [input("ids", "int64", [2])])).toThrow(
      'input "ids": int64[2] has no gradient: its dtype is int64.',
    );
  });

  test("a derivative that is not implemented, but only where it is needed", () => {
    const heads = float("heads", [1, 1, 2, 4]);
    const [cos, sin] = [float("cos", [2, 2]), float("sin", [2, 2])];
    const loss = total(op.rotaryEmbedding(heads, constantOf([0, 1], [1, 2], "int64"), cos, sin));
    expect(() => gradients(loss, [heads])).not.toThrow();
    expect(() => gradients(loss, [heads, cos])).toThrow(
      'RotaryEmbedding has no derivative for its input 2 (input "cos": float32[2, 2]).',
    );
  });
});

describe("shapes", () => {
  const axes = fc.constantFrom<Shape[number]>(1, 2, 3, symbol("batch"), dimAdd(symbol("past"), 1));
  /** A shape that broadcasts against `shape`: a tail of it, with some axes 1. */
  const against = (shape: Shape): fc.Arbitrary<Shape> =>
    fc
      .tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }))
      .map(([from, ones]) => shape.slice(from).map((dim, i) => (ones[i] ? 1 : dim)));
  const pairs = fc
    .array(axes, { maxLength: 4 })
    .chain((shape) => fc.tuple(against(shape), against(shape), fc.constant(shape)));

  test("gradients keep the shapes of what they belong to, symbolic ones too", () => {
    const binary = fc.constantFrom(op.add, op.sub, op.mul, op.div, op.pow);
    const unary = fc.constantFrom(op.exp, op.tanh, op.relu, (x: Value) => op.gelu(x, "tanh"));
    fc.assert(
      fc.property(pairs, binary, unary, ([left, right, shape], combine, apply) => {
        const [a, b, c] = [float("a", left), float("b", right), float("c", shape)];
        const y = apply(op.add(combine(a, b), c));
        for (const [i, slope] of gradients(total(y), [a, b, c]).entries()) {
          expect(slope.shape.map(String)).toEqual([a, b, c][i]!.shape.map(String));
          expect(slope.dtype).toBe("float32");
        }
      }),
    );
  });

  test("products keep the shapes of their factors", () => {
    fc.assert(
      fc.property(pairs, axes, axes, axes, ([left, right], m, k, n) => {
        const [a, b] = [float("a", [...left, m, k]), float("b", [...right, k, n])];
        const [da, db] = gradients(total(op.matmul(a, b)), [a, b]);
        expect(da!.shape.map(String)).toEqual(a.shape.map(String));
        expect(db!.shape.map(String)).toEqual(b.shape.map(String));
      }),
    );
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { flopsOf } from "../../src/graph/cut/flops.ts";
import {
  constantOf,
  dimMultiply,
  gradients,
  input,
  nodesOf,
  op,
  reachable,
  type Shape,
  sinkGathers,
  symbol,
  type Value,
} from "../../src/graph/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, sharedEngine } from "../support/run-graph.ts";

const [batch, sequence, labels] = [symbol("batch"), symbol("sequence"), symbol("labels")] as const;
const tokens = dimMultiply(batch, sequence);
const float = (name: string, shape: Shape): Value => input(name, "float32", shape);
const total = (x: Value): Value => op.reduceSum(x, { axes: x.shape.map((_, i) => i), keepdims: false });
const numbers = new Numbers(3);
const weightOf = (...shape: number[]): Value => constantOf(numbers.fill(shape), shape);
const at = input("at", "int64", [labels]);
const gathered = (x: Value): Value => op.gather(op.reshape(x, [tokens, x.shape.at(-1)!]), at);

/** What is gathered behind the pass: operators of what a Gather reads, through reshapes; an input's name. */
function gatheredOps(value: Value): string[] {
  const nameOf = ({ source }: Value): string => {
    if (source.kind !== "node") return source.kind === "input" ? source.name : source.kind;
    const { node } = source;
    return node.op === "Reshape" ? nameOf((node.inputs as readonly Value[])[0]!) : node.op;
  };
  const gathers = nodesOf([value]).filter(({ op: name }) => name === "Gather");
  return gathers.map(({ inputs }) => nameOf((inputs as readonly Value[])[0]!)).sort();
}
const sunk = (value: Value, behind?: readonly Value[]): Value =>
  sinkGathers({ value }, behind && { behind })["value"]!;

describe("a gather moves up", () => {
  const x = float("x", [batch, sequence, 4]);
  const flat = op.reshape(x, [tokens, 4]);

  test.each<[string, () => Value]>([
    [
      "products, their c with rows and without",
      () => op.gemm(op.gemm(flat, weightOf(4, 4)), weightOf(4, 3), { c: weightOf(3) }),
    ],
    [
      "a residual",
      () => op.gemm(op.gemm(flat, weightOf(6, 4), { transB: true }), weightOf(6, 4), { c: op.exp(flat) }),
    ],
    [
      "three axes and two",
      () => op.add(op.reshape(op.gemm(flat, weightOf(4, 4)), [batch, sequence, 4]), op.tanh(x)),
    ],
    ["norms", () => op.rmsNorm(op.layerNorm(x, weightOf(4), weightOf(4), 1e-5), weightOf(4), 1e-5)],
    ["a product with a matrix", () => op.matmul(x, weightOf(4, 2))],
    ["softmaxes and sums within rows", () => op.mul(op.softmax(x), op.reduceMean(x))],
    [
      "heads, split, turned, cut and joined",
      () => {
        const heads = op.transpose(op.reshape(x, [batch, sequence, 2, 2]), [0, 1, 3, 2]);
        const cut = op.pad(op.slice(op.neg(heads), 2, 1, 2), 2, 1, 0);
        return op.reshape(op.concat([cut, heads], 3), [batch, sequence, 8]);
      },
    ],
    ["operands without rows", () => op.mul(op.add(x, weightOf(1, 1, 4)), op.add(weightOf(1, 4), 2))],
    ["rows of one number", () => op.expand(op.reduceSum(x), [batch, sequence, 3])],
    ["masks", () => op.where(op.and(op.greater(x, 0), op.not(op.less(x, weightOf(4)))), op.mul(x, 2), 0)],
  ])("past %s", (_, build) => {
    expect(gatheredOps(gathered(build()))).not.toEqual(gatheredOps(gathered(x)));
    const result = sunk(gathered(build()));
    expect(new Set(gatheredOps(result))).toEqual(new Set(["x"]));
    expect(result.shape).toEqual(gathered(build()).shape);
    for (const { shape } of reachable([result])) expect(shape.indexOf(labels)).toBeLessThan(1);
  });

  test.each<[string, string[], () => Value]>([
    [
      "a transposition of rows",
      ["Transpose"],
      () => op.exp(op.transpose(op.reshape(x, [sequence, batch, 4]), [1, 0, 2])),
    ],
    ["a sum over tokens", ["Add"], () => op.add(op.exp(x), op.reduceSum(x, { axes: [1] }))],
    ["a softmax over tokens", ["Softmax"], () => op.neg(op.softmax(x, 1))],
    ["a table of places", ["Add"], () => op.exp(op.add(x, float("places", [1, sequence, 4])))],
    ["products of rows with rows", ["MatMul"], () => op.neg(op.matmul(op.matmul(x, op.transposeLast(x)), x))],
    [
      "a transposed product",
      ["Gemm"],
      () => op.exp(op.gemm(float("t", [4, tokens]), weightOf(4, 4), { transA: true })),
    ],
    [
      "a product whose result's axes are the rows'",
      ["Gemm"],
      () => {
        const places = op.gemm(float("t", [batch, 4]), float("u", [4, sequence]));
        return op.exp(op.reshape(places, [batch, sequence, 1]));
      },
    ],
    [
      "a product with itself",
      ["Exp"],
      () => {
        const square = op.exp(float("square", [tokens, tokens]));
        return op.gemm(op.gemm(square, square), float("w", [tokens, 4]));
      },
    ],
    [
      "rows that are joined to others",
      ["Concat"],
      () => op.neg(op.slice(op.concat([x, x], 1), 1, 0, sequence)),
    ],
  ])("but not past %s", (_, expected, build) => {
    const through = gatheredOps(sunk(gathered(build())));
    expect(through.every((name) => expected.includes(name) || name === "Slice")).toBe(true);
    expect(through).not.toEqual([]);
  });

  test("nor past what something else reads, or what is returned itself", () => {
    const hidden = op.gemm(flat, weightOf(4, 4));
    const loss = op.add(total(gathered(op.exp(hidden))), total(hidden));
    expect(gatheredOps(sunk(loss))).toEqual(["Gemm"]);
    const both = sinkGathers({ loss: total(gathered(op.exp(hidden))), hidden });
    expect(gatheredOps(both["loss"]!)).toEqual(["Gemm"]);
    expect(both["hidden"]).toBe(hidden);
  });

  test("both gathers of the same rows move, those of others stay apart", () => {
    const hidden = op.exp(flat);
    const same = op.add(op.gather(hidden, at), op.gather(op.neg(hidden), at));
    expect(gatheredOps(sunk(same))).toEqual(["x"]);
    const other = input("other", "int64", [labels]);
    expect(gatheredOps(sunk(op.add(op.gather(hidden, at), op.gather(op.neg(hidden), other))))).toEqual([
      "Exp",
      "Exp",
    ]);
  });

  test("a gather of a gather moves too", () => {
    const once = op.gather(op.exp(flat), at);
    const again = input("again", "int64", [symbol("few")]);
    expect(gatheredOps(sunk(op.gather(op.tanh(once), again)))).toEqual(["Gather", "x"]);
  });

  test("past what depends on a trained parameter alone, if asked to", () => {
    const trained = float("trained", [4, 4]);
    const frozen = op.exp(op.gemm(flat, weightOf(4, 4)));
    const value = gathered(op.tanh(op.gemm(frozen, trained)));
    expect(gatheredOps(sunk(value, [trained]))).toEqual(["Exp"]);
    expect(gatheredOps(sunk(value))).toEqual(["x"]);
  });

  test("rows of a table stay: they are as many in every batch", () => {
    const table = op.gather(op.exp(weightOf(8, 4)), at);
    expect(sunk(table)).toBe(table);
    const nothing = gathered(x);
    expect(sunk(nothing)).toBe(nothing);
  });
});

type Layer = { readonly kind: number; readonly a: number; readonly b: number };
const layers = fc.array(fc.record({ kind: fc.nat(11), a: fc.nat(30), b: fc.nat(30) }), {
  minLength: 2,
  maxLength: 12,
});

/** A random graph of values [batch, sequence, 4], some of which mix tokens; its loss reads labelled rows of the last ones. */
function randomGraph(drawn: readonly Layer[]): { loss: Value; trained: Value } {
  const trained = float("trained", [4, 4]);
  const values = [float("x", [batch, sequence, 4]), float("z", [batch, sequence, 4])];
  const random = new Numbers(2);
  const weight = (...shape: number[]): Value => constantOf(random.fill(shape), shape);
  for (const { kind, a, b } of drawn) {
    // Most layers read what is new, so that many graphs are deep.
    const left = values.at(-1 - (a % Math.min(values.length, 3)))!;
    const right = values[b % values.length]!;
    const flat = op.reshape(left, [tokens, 4]);
    const back = (rows: Value): Value => op.reshape(rows, [batch, sequence, 4]);
    const made = [
      () => op.add(left, right),
      () => back(op.gemm(flat, trained, { transB: true, c: op.reshape(right, [tokens, 4]) })),
      () => back(op.gemm(flat, weight(4, 4), { c: weight(4) })),
      () => op.mul(left, op.sigmoid(left)),
      () => op.rmsNorm(left, weight(4), 1e-3),
      () => op.where(op.greater(right, weight(1, 1, 4)), left, 0),
      () => op.sub(left, op.reduceMean(right)),
      () => op.softmax(left),
      () => op.matmul(op.softmax(op.matmul(left, op.transposeLast(right))), right),
      () => op.sub(left, op.reduceMean(left, { axes: [1] })),
      () =>
        op.reshape(op.transpose(op.reshape(left, [batch, sequence, 2, 2]), [0, 1, 3, 2]), [
          batch,
          sequence,
          4,
        ]),
      () => op.layerNorm(op.matmul(left, trained), weight(4), weight(4), 1e-3),
    ];
    values.push(made[kind]!());
  }
  const ends = [values.at(-1)!, values.at(-2)!].map((value) => total(op.tanh(gathered(value))));
  return { loss: op.add(ends[0]!, op.mul(ends[1]!, 0.5)), trained };
}

describe("random graphs", () => {
  const engine = sharedEngine({ threads: 1 });
  const sizes = new Map([
    ["batch", 3],
    ["sequence", 5],
    ["labels", 2],
  ]);
  const flops = (value: Value): number =>
    nodesOf([value]).reduce((sum, node) => sum + flopsOf(node, sizes), 0);
  /** Gathers are added, but no work on rows. */
  const work = (value: Value): number =>
    nodesOf([value]).reduce((sum, node) => sum + (node.op === "Gather" ? 0 : flopsOf(node, sizes)), 0);

  test("nothing is computed twice", () => {
    let moved = 0;
    fc.assert(
      fc.property(layers, (drawn) => {
        const { loss } = randomGraph(drawn);
        const result = sunk(loss);
        expect(work(result)).toBeLessThanOrEqual(work(loss));
        const count = (value: Value): number =>
          nodesOf([value]).filter(({ op: name }) => !["Gather", "Reshape"].includes(name)).length;
        expect(count(result)).toBe(count(loss));
        if (flops(result) < flops(loss)) moved++;
      }),
      { numRuns: 300 },
    );
    expect(moved).toBeGreaterThan(150);
  });

  test("losses and gradients are the same", async () => {
    for (const drawn of fc.sample(layers, { numRuns: 30, seed: 11 })) {
      const { loss, trained } = randomGraph(drawn);
      const random = new Numbers(drawn.length);
      const fed = (...shape: number[]) => tensor("float32", shape, Float32Array.from(random.fill(shape)));
      const feeds = {
        x: fed(3, 5, 4),
        z: fed(3, 5, 4),
        trained: fed(4, 4),
        at: tensor("int64", [4], BigInt64Array.of(7n, 2n, 14n, 7n)),
      };
      const run = async (value: Value) =>
        evaluate(engine(), { loss: value, gradient: gradients(value, [trained])[0]! }, feeds);
      const [plain, moved] = [await run(loss), await run(sunk(loss))];
      for (const name of ["loss", "gradient"])
        expect(
          relativeL2(moved[name]!.data as Float32Array, plain[name]!.data as Float32Array),
          JSON.stringify(drawn),
        ).toBeLessThan(name === "loss" ? 1e-6 : 1e-5);
    }
  });
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GraphError } from "../../../src/errors.ts";
import { flopsOf } from "../../../src/graph/cut/flops.ts";
import { originalsOf } from "../../../src/graph/cut/originals.ts";
import {
  type CutOptions,
  constantOf,
  cutFrozen,
  dimMultiply,
  emit,
  gradients,
  input,
  nodesOf,
  op,
  reachable,
  type Shape,
  symbol,
  type Value,
} from "../../../src/graph/index.ts";
import { tensor } from "../../../src/tensor/index.ts";
import { evaluate, Numbers, sharedEngine } from "../../support/run-graph.ts";

const [batch, sequence] = [symbol("batch"), symbol("sequence")] as const;
const sizes = { batch: 2, sequence: 5, images: 2 };
const options: CutOptions = {
  varying: ["noise"],
  layout: ["mask"],
  sizes,
  flopsPerByte: 1,
  minSavedShare: 0,
};
const float = (name: string, shape: Shape): Value => input(name, "float32", shape);
const numbers = new Numbers(3);
const weightOf = (...shape: number[]): Value => constantOf(numbers.fill(shape), shape);
const rows = (x: Value): Value => op.reshape(x, [dimMultiply(batch, sequence), x.shape.at(-1)!]);
const total = (x: Value): Value => op.reduceSum(x, { axes: x.shape.map((_, i) => i), keepdims: false });
const inputsOf = (outputs: Readonly<Record<string, Value>>): string[] =>
  reachable(Object.values(outputs)).flatMap(({ source }) => (source.kind === "input" ? [source.name] : []));

describe("FLOPs", () => {
  const of = (value: Value): number => flopsOf(nodesOf([value]).at(-1)!, new Map(Object.entries(sizes)));
  const x = float("x", [batch, 8, 6]);
  const picture = float("p", [batch, 4, 9, 9]);

  test.each<[string, Value, number]>([
    ["Gemm", op.gemm(float("a", [batch, 6]), weightOf(3, 6), { transB: true }), 2 * 2 * 3 * 6],
    [
      "Gemm, transposed",
      op.gemm(float("a", [batch, 6]), float("b", [batch, 3]), { transA: true }),
      2 * 6 * 3 * 2,
    ],
    ["MatMul", op.matmul(x, weightOf(6, 7)), 2 * 2 * 8 * 7 * 6],
    ["Conv", op.conv(picture, weightOf(8, 2, 3, 3), { group: 2 }), 2 * (2 * 8 * 7 * 7) * (2 * 9)],
    ["ConvTranspose", op.convTranspose(picture, weightOf(4, 3, 2, 2)), 2 * (2 * 4 * 9 * 9) * (3 * 4)],
    ["Reshape", op.reshape(x, [batch, 48]), 0],
  ])("%s", (_, value, expected) => {
    expect(of(value)).toBe(expected);
  });

  test("what is not a product costs a little for each element, a reduction for each that it reads", () => {
    for (const value of [op.add(x, 1), op.softmax(x), op.transpose(x, [1, 0, 2]), op.reduceSum(x)]) {
      expect(of(value)).toBeGreaterThanOrEqual(2 * 8 * 6);
      expect(of(value)).toBeLessThanOrEqual(10 * 2 * 8 * 6);
    }
  });
});

describe("what is kept", () => {
  const x = float("x", [batch, sequence, 4]);
  const wide = op.gemm(rows(x), weightOf(64, 4), { transB: true });
  const narrow = op.gemm(wide, weightOf(3, 64), { transB: true });
  const trained = float("trained", [2, 3]);
  const loss = (hidden: Value): Value => total(op.gemm(hidden, trained, { transB: true }));

  test("the narrow value after much work, fed as [batch, sequence, features]", () => {
    const cut = cutFrozen({ loss: loss(narrow) }, options)!;
    expect(cut.kept).toEqual([
      {
        name: "kept.0",
        value: narrow,
        rows: { kind: "token", batch: "batch", sequence: "sequence", flat: true, shape: [3] },
      },
    ]);
    expect(String(cut.prefix["kept.0"]!.shape)).toBe("batch,sequence,3");
    expect(inputsOf(cut.prefix)).toEqual(["x"]);
    expect(inputsOf(cut.outputs).sort()).toEqual(["kept.0", "trained"]);
    expect(cut.bytesPerExample({ batch: 7, sequence: 11 })).toBe(11 * 3 * 4);
    const products = 2 * 10 * 64 * 4 + 2 * 10 * 64 * 3;
    expect(cut.savedFlops).toBe(products / 2);
    expect(cut.totalFlops).toBeGreaterThan(cut.savedFlops);
  });

  test("nothing if a byte is dear, if too little is saved, or if everything varies", () => {
    expect(cutFrozen({ loss: loss(narrow) }, { ...options, flopsPerByte: 1e4 })).toBeUndefined();
    expect(cutFrozen({ loss: loss(narrow) }, { ...options, minSavedShare: 0.99 })).toBeUndefined();
    for (const varying of [["x"], [x]])
      expect(cutFrozen({ loss: loss(narrow) }, { ...options, varying })).toBeUndefined();
  });

  test("a fed parameter varies unless it is said to be fixed", () => {
    const fed = float("fed", [3, 3]);
    const outputs = { loss: loss(op.gemm(narrow, fed)) };
    expect(cutFrozen(outputs, options)!.kept[0]!.value).toBe(narrow);
    const [kept] = cutFrozen(outputs, { ...options, fixed: ["fed"] })!.kept;
    expect(kept!.value).not.toBe(narrow);
    expect(kept!.value.shape).toEqual(narrow.shape);
  });

  test("not what follows from layout and weights alone, at any price", () => {
    const mask = float("mask", [batch, sequence]);
    const table = op.cos(op.mul(op.reshape(mask, [dimMultiply(batch, sequence), 1]), weightOf(1, 3)));
    const cut = cutFrozen({ loss: loss(op.mul(narrow, table)) }, { ...options, flopsPerByte: 0 })!;
    expect(cut.kept).toHaveLength(1); // their product
    const apart = cutFrozen({ loss: op.mul(loss(narrow), loss(table)) }, { ...options, flopsPerByte: 0 })!;
    expect(apart.kept.map(({ value }) => value)).toEqual([narrow]);
    expect(inputsOf(apart.outputs)).toContain("mask");
  });

  test("not what is no float, nor what has no row per example", () => {
    const turned = op.transpose(narrow, [1, 0]);
    const cut = cutFrozen({ loss: total(op.gemm(trained, turned)) }, { ...options, flopsPerByte: 0 })!;
    expect(cut.kept.map(({ value }) => value)).toEqual([narrow]);
    const truth = op.greater(narrow, 0);
    const where = { loss: loss(op.where(truth, float("noise", [dimMultiply(batch, sequence), 3]), 0)) };
    expect(cutFrozen(where, { ...options, flopsPerByte: 0 })!.kept.map(({ value }) => value)).toEqual([
      narrow,
    ]);
  });

  test("a value from which several others follow is kept once instead of them", () => {
    const uses = [1, 2, 3].map(() => op.gemm(narrow, weightOf(3, 3)));
    const sum = uses.map(loss).reduce((a, b) => op.add(a, b));
    const cut = cutFrozen({ loss: sum }, { ...options, flopsPerByte: 4 })!;
    expect(cut.kept.map(({ value }) => value)).toEqual([narrow]);
    expect(cutFrozen({ loss: sum }, { ...options, flopsPerByte: 0.1 })!.kept).toHaveLength(3);
  });

  test("what is computed twice is kept once", () => {
    const twice = [1, 2].map(() => op.sigmoid(narrow));
    const sum = twice.map((x) => loss(op.gemm(x, weightOf(3, 3)))).reduce((a, b) => op.add(a, b));
    const cut = cutFrozen({ loss: sum }, { ...options, flopsPerByte: 4 })!;
    expect(cut.kept.map(({ value }) => value)).toEqual([twice[0]]);
    expect(nodesOf(Object.values(cut.outputs)).some((node) => node.op === "Sigmoid")).toBe(false);
  });

  test("an output that is frozen itself", () => {
    const alone = cutFrozen({ narrow, loss: total(trained) }, options)!;
    expect(alone.kept.map(({ value }) => value)).toEqual([narrow]);
    const cut = cutFrozen({ narrow, loss: loss(narrow) }, options)!;
    expect(Object.keys(cut.outputs)).toEqual(["narrow", "loss"]);
    expect(inputsOf({ narrow: cut.outputs["narrow"]! })).toEqual(["kept.0"]);
    expect(cut.outputs["narrow"]!.shape).toEqual(narrow.shape);
  });

  test("an input called as a kept value is refused", () => {
    const taken = { loss: op.add(loss(narrow), float("kept.0", [])) };
    expect(() => cutFrozen(taken, options)).toThrow(/An input is called "kept.0"/);
  });

  test("a symbol that no input has behind the cut is refused, not left to fail when the graph is emitted", () => {
    const hidden = op.reduceSum(op.reshape(narrow, [batch, sequence, 3]), { axes: [1], keepdims: false });
    const count = op.reduceSum(op.range(0, sequence), { axes: [0], keepdims: false });
    const mean = { loss: op.div(loss(hidden), count) };
    const call = (): unknown => cutFrozen(mean, options);
    expect(call).toThrow(GraphError);
    expect(call).toThrow(
      /The graph behind what is kept needs the size of "sequence", which no input of it has/,
    );
  });

  test("a symbol without a size is refused", () => {
    expect(() => cutFrozen({ loss: loss(narrow) }, { ...options, sizes: { batch: 1 } })).toThrow(
      /size of "sequence" is not known/,
    );
  });
});

/** A random graph: each layer takes one or two values before it. */
type Layer = { readonly kind: number; readonly a: number; readonly b: number; readonly width: number };
const layers = fc.array(
  fc.record({ kind: fc.nat(6), a: fc.nat(20), b: fc.nat(20), width: fc.constantFrom(1, 2, 4) }),
  { minLength: 1, maxLength: 7 },
);

/** Values [batch · sequence, width]; what is made of the noise varies. */
function randomGraph(drawn: readonly Layer[]): { loss: Value; trained: Value } {
  const trained = float("trained", [2, 2]);
  const noise = float("noise", [dimMultiply(batch, sequence), 1]);
  const values = [rows(float("x", [batch, sequence, 2])), rows(float("mask", [batch, sequence, 2]))];
  const weights = new Numbers(1);
  const weight = (...shape: number[]): Value => constantOf(weights.fill(shape), shape);
  const to = (x: Value, width: number): Value =>
    x.shape[1] === width ? x : op.gemm(x, weight(x.shape[1] as number, width));
  for (const { kind, a, b, width } of drawn) {
    const [left, right] = [values[a % values.length]!, values[b % values.length]!];
    const made = [
      () => op.gemm(left, weight(left.shape[1] as number, width)),
      () => op.add(left, to(right, left.shape[1] as number)),
      () => op.sigmoid(left),
      () => op.mul(left, to(right, left.shape[1] as number)),
      () => op.transpose(op.tanh(op.transpose(left, [1, 0])), [1, 0]),
      () => op.mul(left, noise),
      () => op.gemm(to(left, 2), trained),
    ];
    values.push(made[kind]!());
  }
  const ends = values.slice(-3).map((x) => total(op.mul(op.gemm(to(x, 2), trained), noise)));
  return { loss: ends.reduce((x, y) => op.add(x, y)), trained };
}

describe("random graphs", () => {
  const bytes = (value: Value): number => (value.shape[1] as number) * 10 * 4;
  const symbols = new Map(Object.entries(sizes));
  const isConstant = ({ shape }: Value): boolean => shape.every((dim) => typeof dim === "number");

  test("no set of values is cheaper to keep", () => {
    fc.assert(
      fc.property(layers, fc.constantFrom(0.1, 0.5, 1, 3), (drawn, flopsPerByte) => {
        const { loss } = randomGraph(drawn);
        const values = reachable([loss]);
        fc.pre([...originalsOf(values)].every(([value, original]) => value === original));
        const [frozen, ofContent] = [new Set<Value>(), new Set<Value>()];
        for (const value of values) {
          const { source } = value;
          const operands = source.kind === "node" ? (source.node.inputs as Value[]).filter(Boolean) : [];
          if (
            source.kind === "input"
              ? source.name === "x" || source.name === "mask"
              : operands.every((o) => frozen.has(o))
          )
            frozen.add(value);
          if (
            source.kind === "input"
              ? source.name === "x"
              : frozen.has(value) && operands.some((o) => ofContent.has(o))
          )
            ofContent.add(value);
        }
        const able = [...frozen]
          .filter(
            ({ source, shape }) =>
              source.kind === "node" && shape.length === 2 && typeof shape[1] === "number",
          )
          .filter(
            (value) => ofContent.has(value) && !isConstant(value) && typeof value.shape[0] !== "number",
          );
        fc.pre(able.length <= 10);
        /** Cost of what is computed again if these are kept, with them. */
        const costOf = (kept: ReadonlySet<Value>): number => {
          let cost = 0;
          const seen = new Set<Value>();
          const need = (value: Value): void => {
            if (seen.has(value) || value.source.kind !== "node") return;
            seen.add(value);
            if (kept.has(value)) {
              cost += Math.round(bytes(value) * flopsPerByte);
              return;
            }
            if (frozen.has(value) && !isConstant(value)) cost += flopsOf(value.source.node, symbols);
            for (const x of (value.source.node.inputs as (Value | undefined)[]).filter(
              (o) => o !== undefined,
            ))
              need(x);
          };
          need(loss);
          return cost;
        };
        const cut = cutFrozen({ loss }, { ...options, flopsPerByte });
        const found = costOf(new Set(cut?.kept.map(({ value }) => value)));
        for (let set = 0; set < 2 ** able.length; set++)
          expect(costOf(new Set(able.filter((_, i) => (set >> i) & 1)))).toBeGreaterThanOrEqual(found);
      }),
      { numRuns: 300 },
    );
  });

  test("the graph behind the cut does not compute what is kept, and is emitted from what it is fed", () => {
    fc.assert(
      fc.property(layers, fc.constantFrom(0, 0.5), (drawn, flopsPerByte) => {
        const { loss, trained } = randomGraph(drawn);
        const outputs = { loss, gradient: gradients(loss, [trained])[0]! };
        const cut = cutFrozen(outputs, { ...options, flopsPerByte });
        if (!cut) return;
        const behind = new Set(nodesOf(Object.values(cut.outputs)));
        for (const { value } of cut.kept)
          expect(value.source.kind === "node" && behind.has(value.source.node)).toBe(false);
        const names = [...cut.kept.map(({ name }) => name), "trained", "noise", "mask", "x"];
        for (const { name } of emit(cut.outputs).inputs) expect(names).toContain(name);
        expect(emit(cut.prefix).outputs.map(({ name }) => name)).toEqual(cut.kept.map(({ name }) => name));
      }),
      { numRuns: 200 },
    );
  });
});

describe("run", () => {
  const engine = sharedEngine({ threads: 1 });

  test("prefix and suffix of random graphs compute what the graph does", async () => {
    let cuts = 0;
    for (const drawn of fc.sample(layers, { numRuns: 25, seed: 7 })) {
      const { loss, trained } = randomGraph(drawn);
      const outputs = { loss, gradient: gradients(loss, [trained])[0]! };
      const cut = cutFrozen(outputs, { ...options, flopsPerByte: 0.3 });
      if (!cut) continue;
      cuts++;
      const random = new Numbers(drawn.length);
      const fed = (...shape: number[]) => tensor("float32", shape, Float32Array.from(random.fill(shape)));
      const feeds = { x: fed(2, 5, 2), mask: fed(2, 5, 2), noise: fed(10, 1), trained: fed(2, 2) };
      const kept = await evaluate(engine(), cut.prefix, feeds);
      const [plain, behind] = [
        await evaluate(engine(), outputs, feeds),
        await evaluate(engine(), cut.outputs, { ...feeds, ...kept }),
      ];
      expect(behind).toEqual(plain);
    }
    expect(cuts).toBeGreaterThan(8);
  });
});

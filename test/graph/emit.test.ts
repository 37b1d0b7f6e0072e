import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openStore, readCheckpoint, serializeSafetensors } from "../../src/checkpoint/index.ts";
import {
  constantOf,
  dimAdd,
  dimMultiply,
  dimValue,
  emit,
  gradients,
  input,
  op,
  symbol,
  type Value,
  type WeightStorage,
  weight,
} from "../../src/graph/index.ts";
import { ModelProtoSchema, type TypeProto_Tensor } from "../../src/graph/onnx/onnx_pb.ts";
import { fromFloat32, type Tensor, tensor } from "../../src/tensor/index.ts";
import { evaluate, Numbers, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const [batch, sequence] = [symbol("batch"), symbol("sequence")];
const float = (name: string, shape: readonly (number | typeof batch)[]): Value =>
  input(name, "float32", shape);
const decode = (outputs: Record<string, Value>) => fromBinary(ModelProtoSchema, emit(outputs).model).graph!;
const opTypes = (outputs: Record<string, Value>): string[] =>
  decode(outputs).node.map(({ opType }) => opType);
const random = (seed: number, ...shape: number[]): Tensor =>
  tensorOf(new Numbers(seed).fill(shape), shape, "float32");

describe("symbolic dimensions", () => {
  test("one session runs with every batch and sequence size", async () => {
    const x = float("x", [batch, sequence, 4]);
    const w = float("w", [4, 6]);
    // [batch, sequence, 6] -> heads -> back, with a softmax over a symbolic axis: every form of Reshape target.
    const rows = op.matmul(op.reshape(x, [-1, 4]), w);
    const heads = op.transpose(op.reshape(rows, [batch, sequence, 2, 3]), [0, 2, 1, 3]);
    const scores = op.softmax(op.matmul(heads, op.transposeLast(heads)));
    const mixed = op.reshape(op.transpose(op.matmul(scores, heads), [0, 2, 1, 3]), [batch, sequence, 6]);
    const loss = op.reduceSum(op.mul(mixed, mixed), { axes: [0, 1, 2], keepdims: false });
    const session = await engine().createSession({ mixed, loss, dw: gradients(loss, [w])[0]! });
    const feeds = { w: random(1, 4, 6) };
    const one = random(2, 1, 3, 4);
    const { outputs: alone } = await session.run({ ...feeds, x: one });
    for (const [b, s] of [
      [1, 1],
      [2, 3],
      [3, 1],
      [1, 7],
    ] as const) {
      const { outputs } = await session.run({ ...feeds, x: random(2, b, s, 4) });
      expect(outputs["mixed"]!.shape).toEqual([b, s, 6]);
      expect(outputs["dw"]!.shape).toEqual([4, 6]);
    }
    // A batch of the same example twice: the same rows twice, the loss and its gradient doubled.
    const twice = tensorOf([...numbersOf(one), ...numbersOf(one)], [2, 3, 4], "float32");
    const { outputs } = await session.run({ ...feeds, x: twice });
    const first = numbersOf(alone["mixed"]!);
    for (const [i, y] of numbersOf(outputs["mixed"]!).entries())
      expect(Math.abs(y - first[i % first.length]!)).toBeLessThan(1e-6);
    expect(Number(outputs["loss"]!.data[0])).toBeCloseTo(2 * Number(alone["loss"]!.data[0]), 4);
    await session.dispose();
  });

  test("an empty batch is a batch", async () => {
    const x = float("x", [batch, 2, 3]);
    const loss = op.reduceSum(op.mul(op.reshape(x, [-1, 3]), 2), { axes: [0, 1], keepdims: false });
    const results = await evaluate(
      engine(),
      { loss, dx: gradients(loss, [x])[0]! },
      { x: tensorOf([], [0, 2, 3], "float32") },
    );
    expect(results["loss"]!.data[0]).toBe(0);
    expect(results["dx"]!.shape).toEqual([0, 2, 3]);
  });

  test("Reshape copies with 0 and leaves one dimension open where that is enough, and computes what is not", () => {
    const x = float("x", [batch, sequence, 6]);
    const targets = (to: readonly (number | typeof batch)[]): unknown => {
      const graph = decode({ y: op.reshape(x, to) });
      const target = graph.node.find(({ opType }) => opType === "Reshape")!.input[1]!;
      const found = graph.initializer.find(({ name }) => name === target);
      return found && Array.from(new BigInt64Array(found.rawData.slice().buffer), Number);
    };
    expect(targets([batch, sequence, 2, 3])).toEqual([0, 0, 2, 3]);
    expect(targets([dimMultiply(batch, sequence), 6])).toEqual([-1, 6]);
    expect(targets([batch, 6, sequence])).toEqual([0, 6, -1]);
    expect(targets([sequence, batch, 6])).toBeUndefined(); // from Shape nodes
  });

  test("a computed Reshape target has the right sizes", async () => {
    const x = float("x", [batch, sequence, 6]);
    const { y } = await evaluate(
      engine(),
      { y: op.reshape(x, [sequence, batch, 6]) },
      { x: random(1, 2, 5, 6) },
    );
    expect(y!.shape).toEqual([5, 2, 6]);
  });

  test("polynomials of sizes are computed", async () => {
    const x = float("x", [batch, sequence]);
    const size = dimAdd(dimAdd(dimMultiply(dimMultiply(batch, sequence), 2), dimMultiply(sequence, -1)), 3);
    const { n } = await evaluate(engine(), { n: dimValue(size), x1: op.mul(x, 1) }, { x: random(1, 2, 5) });
    expect(n).toEqual(tensorOf([18], [], "int64"));
  });

  test("Range, Slice, Pad, Expand and Concat take symbolic bounds", async () => {
    const [past, x] = [float("past", [batch, symbol("past")]), float("x", [batch, sequence])];
    const total = dimAdd(symbol("past"), sequence);
    const all = op.concat([past, x], 1);
    const results = await evaluate(
      engine(),
      {
        positions: op.range(symbol("past"), total, "int64"),
        fresh: op.slice(all, 1, symbol("past"), total),
        padded: op.pad(x, 1, symbol("past"), 1),
        ones: op.full(1, [batch, total]),
        masked: op.expand(op.reshape(op.range(0, total), [1, total]), [batch, total]),
      },
      {
        past: tensorOf([1, 2, 3, 4], [2, 2], "float32"),
        x: tensorOf([5, 6, 7, 8, 9, 10], [2, 3], "float32"),
      },
    );
    expect(results["positions"]).toEqual(tensorOf([2, 3, 4], [3], "int64"));
    expect(numbersOf(results["fresh"]!)).toEqual([5, 6, 7, 8, 9, 10]);
    expect(numbersOf(results["padded"]!)).toEqual([0, 0, 5, 6, 7, 0, 0, 0, 8, 9, 10, 0]);
    expect(results["ones"]!.shape).toEqual([2, 5]);
    expect(numbersOf(results["masked"]!)).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
  });

  test("the mean over symbolic axes divides by their size, forward and backward", async () => {
    const x = float("x", [batch, sequence]);
    const loss = op.reduceMean(x, { axes: [0, 1], keepdims: false });
    const { dx } = await evaluate(engine(), { loss, dx: gradients(loss, [x])[0]! }, { x: random(1, 2, 4) });
    expect(numbersOf(dx!)).toEqual(new Array(8).fill(0.125));
  });

  test("a size that no input has is an error", () => {
    const x = float("x", [dimAdd(symbol("past"), sequence)]);
    expect(() =>
      emit({ y: op.expand(op.exp(x), [symbol("batch"), dimAdd(symbol("past"), sequence)]) }),
    ).toThrow('No input has a dimension called "batch".');
  });
});

describe("what is emitted", () => {
  test("is what the outputs reach, and no more", () => {
    const x = float("x", [2]);
    const y = op.exp(x);
    op.mul(y, float("unused", [2]));
    expect(opTypes({ y })).toEqual(["Exp"]);
    expect(opTypes({ y, again: y, z: x })).toEqual(["Exp", "Identity", "Identity"]);
    expect(decode({ y }).input.map(({ name }) => name)).toEqual(["x"]);
  });

  test("shares equal constants, shapes and sizes", () => {
    const x = float("x", [batch, sequence]);
    const wide = [dimMultiply(batch, 2), sequence];
    const graph = decode({
      a: op.add(op.mul(x, 2), op.mul(op.exp(x), 2)),
      b: op.add(op.full(0, wide), op.full(1, wide)),
    });
    expect(
      graph.initializer.filter(({ dataType, dims }) => dataType === 1 && dims.length === 0),
    ).toHaveLength(3);
    expect(graph.node.filter(({ opType }) => opType === "Shape")).toHaveLength(2);
    expect(graph.node.filter(({ opType }) => opType === "Concat")).toHaveLength(1);
  });

  test("-0 and 0 are different constants", async () => {
    const x = float("x", []);
    const results = await evaluate(
      engine(),
      { a: op.div(x, 0), b: op.div(x, -0) },
      { x: tensorOf([1], [], "float32") },
    );
    expect([results["a"]!.data[0], results["b"]!.data[0]]).toEqual([Infinity, -Infinity]);
  });

  test("an input, a constant or one value under two names can be outputs", async () => {
    const x = float("x", [2]);
    const y = op.neg(x);
    const results = await evaluate(
      engine(),
      { same: x, seven: constantOf([7], [1]), a: y, b: y },
      { x: tensorOf([1, 2], [2], "float32") },
    );
    expect(Object.values(results).map(numbersOf)).toEqual([[1, 2], [7], [-1, -2], [-1, -2]]);
  });

  test("two inputs of one name are an error", () => {
    expect(() => emit({ y: op.add(float("x", [2]), float("x", [2])) })).toThrow('Two inputs are called "x".');
  });

  test("an input and an output of one name are an error", () => {
    expect(() => emit({ x: op.exp(float("x", [2])) })).toThrow('An input and an output are both called "x"');
  });

  test("names of inputs, outputs and weights may look like those of nodes and constants", async () => {
    const x = float("Exp_0", []);
    const y = op.mul(op.exp(op.exp(x)), 2);
    const { constant_0: result } = await evaluate(
      engine(),
      { constant_0: y, Exp_1: op.neg(y) },
      { Exp_0: tensorOf([0], [], "float32") },
    );
    expect(result!.data[0]).toBeCloseTo(2 * Math.E, 5);
  });
});

describe("weights by reference", () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), "graft-weights-"));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  /** Writes a .safetensors file and reads back where its tensors lie. */
  async function stored(file: string, tensors: Record<string, Tensor>): Promise<Map<string, WeightStorage>> {
    const path = join(directory, file);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, serializeSafetensors(tensors));
    return new Map((await readCheckpoint(await openStore(path))).tensors);
  }
  // Exact in every dtype.
  const values = tensor("float32", [2, 2], Float32Array.of(1, -2, 0.5, 3));

  test.each(["float32", "float16", "bfloat16"] as const)("%s is mapped from its file", async (dtype) => {
    const found = await stored(`${dtype}.safetensors`, {
      a: tensor("float32", [3], Float32Array.of(9, 9, 9)),
      w: fromFloat32(values, dtype),
    });
    const w = op.cast(weight(found.get("w")!), "float32");
    const program = emit({ y: op.mul(w, 2) });
    expect(program.weightsDirectory).toBe(directory);
    expect(program.model.length).toBeLessThan(1000);
    const { y } = await evaluate(engine(), { y: op.mul(w, 2) });
    expect(numbersOf(y!)).toEqual([2, -4, 1, 6]);
  });

  test("numbers of 4 bits lie two in a byte; only they need a later opset", async () => {
    const found = await stored("four-bits.safetensors", {
      codes: tensor("uint8", [1, 4], Uint8Array.of(0x21, 0xf7, 0x08, 0x9a)),
      scales: tensor("float32", [1, 2], Float32Array.of(1, 0.5)),
    });
    const [codes, scales] = [weight(found.get("codes")!), weight(found.get("scales")!)];
    const y = op.dequantizedWeight(codes, scales);
    expect(numbersOf((await evaluate(engine(), { y }))["y"]!)).toEqual([1, 2, 7, -1, -4, 0, -3, -3.5]);
    const opsetOf = (outputs: Record<string, Value>) =>
      fromBinary(ModelProtoSchema, emit(outputs).model).opsetImport.find(({ domain }) => domain === "")!
        .version;
    expect([opsetOf({ y }), opsetOf({ y: op.exp(scales) })]).toEqual([21n, 20n]);
    expect(() => op.dequantizedWeight(input("codes", "uint8", [1, 4]), scales)).toThrow("uint8 weight");
  });

  test("shards in several directories, with equal names in different files", async () => {
    const [a, b] = [
      await stored("one/model.safetensors", { w: values }),
      await stored("two/deep/model.safetensors", {
        w: tensor("float32", [2, 2], Float32Array.of(10, 0, 0, 10)),
      }),
    ];
    const y = op.matmul(weight(a.get("w")!), weight(b.get("w")!));
    const locations = decode({ y }).initializer.map(({ externalData }) => externalData[0]!.value);
    expect(locations).toEqual(["one/model.safetensors", "two/deep/model.safetensors"]);
    expect(numbersOf((await evaluate(engine(), { y }))["y"]!)).toEqual([10, -20, 5, 30]);
  });

  test("tied weights are one initializer", async () => {
    const found = (await stored("tied.safetensors", { w: values })).get("w")!;
    const outputs = { y: op.matmul(weight(found), op.transposeLast(weight(found))) };
    expect(decode(outputs).initializer).toHaveLength(1);
    expect(numbersOf((await evaluate(engine(), outputs))["y"]!)).toEqual([5, -5.5, -5.5, 9.25]);
  });

  test.skipIf(process.platform === "win32")(
    "links out of the directory, as in a Hugging Face cache",
    async () => {
      await stored("cache/blobs/0123abcd.safetensors", { w: values });
      mkdirSync(join(directory, "cache/snapshots"));
      const link = join(directory, "cache/snapshots/model.safetensors");
      symlinkSync("../blobs/0123abcd.safetensors", link);
      const found = (await readCheckpoint(await openStore(link))).tensors.get("w")!;
      expect(found.source.path).toBe(link);
      const { y } = await evaluate(engine(), { y: op.mul(weight(found), 1) });
      expect(numbersOf(y!)).toEqual([1, -2, 0.5, 3]);
    },
  );

  test("one weight without a path brings all into memory, as ONNX Runtime takes no mixture", async () => {
    const mapped = (await stored("mapped.safetensors", { w: values })).get("w")!;
    const bytes = new Uint8Array(Float32Array.of(99, 1, 1, 2, 2, 99).buffer);
    const memory: WeightStorage = {
      name: "w",
      dtype: "float32",
      shape: [2, 2],
      byteOffset: 4,
      byteLength: 16,
      // A view of a larger buffer, as a Blob store may give.
      source: { read: async (start, end) => bytes.subarray(start, end) },
    };
    const { y } = await evaluate(engine(), { y: op.add(weight(mapped), weight(memory)) });
    expect(numbersOf(y!)).toEqual([2, -1, 2.5, 5]);
  });

  test("weights on two drives are read into memory", () => {
    const on = (path: string): Value =>
      weight({
        name: "w",
        dtype: "float32",
        shape: [1],
        byteOffset: 0,
        byteLength: 4,
        source: { path, read: async () => new Uint8Array(4) },
      });
    const program = emit({ y: op.add(on("C:\\a\\x.safetensors"), on("D:\\b\\y.safetensors")) });
    expect(program.weightsDirectory).toBeUndefined();
    expect(program.memoryWeights.map(({ storage }) => storage.source.path)).toEqual([
      "C:\\a\\x.safetensors",
      "D:\\b\\y.safetensors",
    ]);
  });

  test("a file that is gone is a RuntimeFailure that names the weight", async () => {
    const found = (await stored("gone.safetensors", { w: values })).get("w")!;
    rmSync(join(directory, "gone.safetensors"));
    await expect(evaluate(engine(), { y: op.mul(weight(found), 1) })).rejects.toMatchObject({
      name: "RuntimeFailure",
      message: expect.stringContaining("gone.safetensors"),
    });
  });
});

describe("declared shapes", () => {
  test("are those of values whose sizes ONNX Runtime does not derive, by the dimensions of the inputs", () => {
    const [batch, tokens] = [symbol("batch"), symbol("tokens")];
    const x = float("x", [batch, tokens, 4]);
    const y = op.exp(op.reshape(x, [dimMultiply(batch, tokens), 4]));
    const { valueInfo } = decode({ y, fixed: op.reshape(float("z", [2, 3]), [6]) });
    const dims = valueInfo.map(({ type }) =>
      (type!.value.value as TypeProto_Tensor).shape!.dim.map(({ value }) => value.value),
    );
    expect(dims).toEqual([["batch*tokens", 4n]]);
  });
});

describe("order", () => {
  // ONNX Runtime starts with the last node that nothing uses: here the loss, then gradients as they become known.
  test("what nothing else uses comes last, the gradients in the order of the parameters, the loss after them", () => {
    const [x, lower, upper] = [float("x", [2, 3]), float("lower", [3, 3]), float("upper", [3, 3])];
    const loss = op.reduceSum(op.gemm(op.relu(op.gemm(x, lower)), upper), { axes: [0, 1], keepdims: false });
    const [dLower, dUpper] = gradients(loss, [lower, upper]);
    const { node } = decode({ loss, dLower: dLower!, dUpper: dUpper! });
    const places = ["dLower", "dUpper", "loss"].map((name) =>
      node.findIndex(({ output }) => output[0] === name),
    );
    expect(places).toEqual([node.length - 3, node.length - 2, node.length - 1]);
  });
});

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { emit, gradients, input, lower, nodesOf, op, type Value, weight } from "../../src/graph/index.ts";
import { Parameter } from "../../src/nn/index.ts";
import { encodeWeight } from "../../src/quantization/encode.ts";
import { int4Codes } from "../../src/quantization/int4.ts";
import { int8Codes } from "../../src/quantization/int8.ts";
import { inMemory } from "../../src/quantization/stored-codes.ts";
import { lowerings, prepackedLowerings } from "../../src/runtime/lowerings.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, numbersOf, sharedEngine } from "../support/run-graph.ts";

type Matrix = number[][];
/** What scripts/record_quantization.py writes; see there. */
type Recorded = {
  case: string;
  bits: 8 | 4;
  error: number;
  scales: number[] | Matrix;
} & Record<"weight" | "codes" | "x" | "y" | "dy" | "dx", Matrix>;

const recorded = JSON.parse(
  gunzipSync(readFileSync(new URL("../vectors/quantization.json.gz", import.meta.url))).toString(),
) as Recorded[];

const matrix = (rows: Matrix): Tensor<"float32"> =>
  tensor("float32", [rows.length, rows[0]!.length], Float32Array.from(rows.flat()));

const engine = sharedEngine({ threads: 1 });

describe.each(recorded.map((entry) => [`${entry.bits} bits, ${entry.case}`, entry] as const))(
  "%s",
  (_, entry) => {
    async function encoded() {
      const parameter = new Parameter([entry.weight.length, entry.weight[0]!.length]);
      parameter.data = matrix(entry.weight);
      return encodeWeight(parameter, entry.bits === 8 ? int8Codes : int4Codes);
    }

    /** Codes and scales as weights of a graph. */
    async function leaves(): Promise<[codes: Value, scales: Value]> {
      const stored = await inMemory(
        (async function* () {
          yield ["weight", await encoded()] as const;
        })(),
      );
      const { codes, scales } = stored.get("weight")!;
      return [weight(codes), weight(scales)];
    }

    test("codes, scales and their error are NumPy's", async () => {
      const { codes, scales, error } = await encoded();
      expect(numbersOf(codes)).toEqual(entry.codes.flat());
      expect(numbersOf(scales)).toEqual(entry.scales.flat());
      expect(error).toBeCloseTo(entry.error, 12);
    });

    test("products, forward and backward, are NumPy's", async () => {
      const [codes, scales] = await leaves();
      const [x, upstream] = [matrix(entry.x), matrix(entry.dy)];
      const from = input("x", "float32", x.shape);
      const y = op.quantizedMatMul(from, codes, scales, { transB: true });
      const loss = op.reduceSum(op.mul(y, input("dy", "float32", upstream.shape)), {
        axes: [0, 1],
        keepdims: false,
      });
      const outputs = await evaluate(engine(), { y, dx: gradients(loss, [from])[0]! }, { x, dy: upstream });
      expect(relativeL2(numbersOf(outputs["y"]!), entry.y.flat())).toBeLessThan(1e-6);
      expect(relativeL2(numbersOf(outputs["dx"]!), entry.dx.flat())).toBeLessThan(1e-6);
    });

    test("a program for few rows rounds no more than blocks of them", async () => {
      const [codes, scales] = await leaves();
      const x = matrix(entry.x);
      const from = input("x", "float32", x.shape);
      const y = op.quantizedMatMul(from, codes, scales, { transB: true });
      const exact = op.gemm(from, op.dequantizedWeight(codes, scales), { transB: true });
      const session = await engine().createSession({ y, exact }, { prepack: true });
      const { outputs } = await session.run({ x });
      await session.dispose();
      const error = relativeL2(numbersOf(outputs["y"]!), numbersOf(outputs["exact"]!));
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(0.02);
    });

    test("rows keep their precision, however uneven they are", async () => {
      const [codes, scales] = await leaves();
      const x = matrix(entry.x);
      const from = input("x", "float32", x.shape);
      const exact = op.gemm(from, op.dequantizedWeight(codes, scales), { transB: true });
      const y = op.quantizedMatMul(from, codes, scales, { transB: true });
      const outputs = await evaluate(engine(), { y, exact }, { x });
      const width = entry.weight.length;
      const row = (value: Tensor, i: number) => numbersOf(value).slice(i * width, (i + 1) * width);
      for (let i = 0; i < x.shape[0]!; i++)
        expect(relativeL2(row(outputs["y"]!, i), row(outputs["exact"]!, i))).toBeLessThan(0.03);
    });
  },
);

test("a value that several weights multiply is quantised once", () => {
  const x = input("x", "float32", [2, 3]);
  const product = (name: string): Value =>
    op.quantizedMatMul(x, input(`${name}.codes`, "int8", [4, 3]), input(`${name}.scales`, "float32", [4]), {
      transB: true,
    });
  const lowered = lower({ q: product("q"), k: product("k") }, lowerings.cpu);
  const names = nodesOf(Object.values(lowered)).map((node) => node.op);
  expect(names.filter((name) => name === "QGemm")).toHaveLength(2);
  expect(names.filter((name) => name === "QuantizeLinear")).toHaveLength(1);
});

test("a program for few rows reads weights of 4 bits as they are", () => {
  const [codes, scales] = [input("codes", "uint8", [4, 32]), input("scales", "float32", [4, 2])];
  const product = op.quantizedMatMul(input("x", "float32", [2, 64]), codes, scales, { transB: true });
  const names = nodesOf([lower({ product }, prepackedLowerings.cpu)["product"]!]).map((node) => node.op);
  expect(names).toEqual(["BitwiseXor", "Reshape", "MatMulNBits"]);
});

test("programs that differ in what is rounded are written differently", () => {
  const x = input("x", "float32", [2, 3]);
  const [codes, scales] = [input("codes", "int8", [4, 3]), input("scales", "float32", [4])];
  const modelOf = (options: { rounded?: boolean; roundedGradient?: boolean }) =>
    emit({ y: op.quantizedMatMul(x, codes, scales, { transB: true, ...options }) }).model;
  const models = [modelOf({}), modelOf({ rounded: false }), modelOf({ roundedGradient: false })];
  expect(new Set(models.map((model) => model.join())).size).toBe(3);
  expect(modelOf({})).toEqual(models[0]);
});

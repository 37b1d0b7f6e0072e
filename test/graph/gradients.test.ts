import { describe, expect, test } from "vitest";
import { gradientRules } from "../../src/graph/gradients.ts";
import {
  constant,
  gradients,
  input,
  lower,
  nodesOf,
  type OpName,
  op,
  type Value,
} from "../../src/graph/index.ts";
import type { Session } from "../../src/runtime/index.ts";
import { dequantizedProducts } from "../../src/runtime/quantized-lowerings.ts";
import type { DType, Tensor } from "../../src/tensor/index.ts";
import { relativeL2 } from "../support/close.ts";
import { Numbers, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";
import { type GradientCase, gradientCases } from "./gradient-cases.ts";

/** Operators for which ONNX Runtime's CPU kernels know no float64; and Cast, whose graph passes float32 anyway. */
const float32Only: ReadonlySet<OpName> = new Set([
  "Erf",
  "Gelu",
  "QuickGelu",
  "RotaryEmbedding",
  "Cast",
  "Conv",
  "ConvTranspose",
  "QuantizedMatMul",
  "QuantizeLinear",
  "DequantizeLinear",
  "QGemm",
  "MatMulNBits",
]);

/** Products of codes as they are defined: differences of what a CPU rounds would be differences of steps. */
const exact = (outputs: Readonly<Record<string, Value>>): Record<string, Value> =>
  lower(outputs, { QuantizedMatMul: dequantizedProducts });

/**
 * Central differences err by h² f‴/6 and by the rounding of f, over h. In float64 h = 1e-5 leaves some 1e-10 of both;
 * in float32 h = 1e-2 leaves some 1e-4.
 */
const accuracy = {
  float64: { step: 1e-5, tolerance: 1e-8 },
  float32: { step: 1e-2, tolerance: 2e-3 },
} as const;

const engine = sharedEngine({ threads: 1 });

/** loss = Σ y·u for a fixed u, as a program with the gradients of what can be differentiated. */
function lossOf({ inputs, build, wrt }: GradientCase, dtype: DType) {
  const feeds = Object.fromEntries(inputs(dtype).map((value, i) => [`x${i}`, value]));
  const values = Object.entries(feeds).map(([name, value]) => input(name, value.dtype, value.shape));
  const y = build(...values);
  const shape = y.shape as readonly number[];
  const upstream = constant(tensorOf(new Numbers(3).fill(shape, 0.5, 1.5), shape, dtype));
  const loss = op.reduceSum(op.mul(y, upstream), { axes: shape.map((_, i) => i), keepdims: false });
  const trained = values.filter((x, i) => x.dtype === dtype && (!wrt || wrt.includes(i)));
  return { y, loss, trained, feeds };
}

const nameOf = ({ source }: Value): string => (source.kind === "input" ? source.name : "");

/** Central differences of the loss for every element of one input. */
async function differences(
  session: Session,
  feeds: Record<string, Tensor>,
  name: string,
  step: number,
): Promise<number[]> {
  const { dtype, shape, data } = feeds[name]!;
  const at = async (i: number, offset: number): Promise<[x: number, loss: number]> => {
    const moved = tensorOf(numbersOf(feeds[name]!), shape, dtype);
    (moved.data as Float64Array)[i]! += offset;
    const { outputs } = await session.run({ ...feeds, [name]: moved });
    return [Number(moved.data[i]), Number(outputs["loss"]!.data[0])];
  };
  const slopes: number[] = [];
  for (let i = 0; i < data.length; i++) {
    const [[right, above], [left, below]] = [await at(i, step), await at(i, -step)];
    slopes.push((above - below) / (right - left));
  }
  return slopes;
}

describe("the list of cases", () => {
  test("has every operator that has a gradient rule", () => {
    expect(Object.keys(gradientCases).sort()).toEqual(Object.keys(gradientRules).sort());
  });

  test.each(Object.entries(gradientCases))("%s is in each of its graphs", (name, cases) => {
    expect(cases.length).toBeGreaterThan(0);
    for (const example of cases)
      expect(
        nodesOf([lossOf(example, "float32").y]).map((node) => node.op),
        example.name,
      ).toContain(name);
  });
});

describe.each(Object.entries(gradientCases) as [OpName, readonly GradientCase[]][])(
  "the gradient of %s",
  (name, cases) => {
    const dtype = float32Only.has(name) ? "float32" : "float64";
    const { step, tolerance } = accuracy[dtype];

    test.each(cases.map((example) => [example.name, example] as const))(
      `equals central differences in ${dtype}: %s`,
      async (_, example) => {
        const { loss, trained, feeds } = lossOf(example, dtype);
        const slopes = Object.fromEntries(gradients(loss, trained).map((dx, i) => [`d${i}`, dx]));
        const session = await engine().createSession(exact({ loss, ...slopes }));
        const forward = await engine().createSession(exact({ loss }));
        const { outputs } = await session.run(feeds);
        expect(trained.length).toBeGreaterThan(0);
        for (const [i, parameter] of trained.entries()) {
          const actual = outputs[`d${i}`]!;
          expect(actual.shape).toEqual(parameter.shape);
          const expected = await differences(forward, feeds, nameOf(parameter), step);
          expect(relativeL2(numbersOf(actual), expected), nameOf(parameter)).toBeLessThan(tolerance);
        }
        await Promise.all([session.dispose(), forward.dispose()]);
      },
    );
  },
);

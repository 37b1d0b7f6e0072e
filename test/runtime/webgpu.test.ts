import { existsSync } from "node:fs";
import { InferenceSession } from "onnxruntime-node";
import { afterAll, describe, expect, test } from "vitest";
import {
  constantOf,
  emit,
  gradients,
  input,
  lower,
  type OpName,
  op,
  symbol,
  type Value,
} from "../../src/graph/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import { lowerings } from "../../src/runtime/lowerings.ts";
import { createEngine } from "../../src/runtime/node.ts";
import { dequantizedProducts } from "../../src/runtime/quantized-lowerings.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import { type GradientCase, gradientCases } from "../graph/gradient-cases.ts";
import { maxAbsDifference, relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, numbersOf, tensorOf } from "../support/run-graph.ts";

/** SwiftShader, a Vulkan device in software; Debian's package "chromium" has it here ("libvulkan1" is needed too). */
const swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";
if (!process.env["VK_ICD_FILENAMES"] && existsSync(swiftShader))
  process.env["VK_ICD_FILENAMES"] = swiftShader;

/** An engine on the GPU, or why there is none. */
async function openGpu(): Promise<Engine | string> {
  let engine: Engine | undefined;
  try {
    engine = await createEngine({ device: "webgpu" });
    await evaluate(engine, { y: op.exp(input("x", "float32", [1])) }, { x: tensorOf([0], [1], "float32") });
    return engine;
  } catch (error) {
    await engine?.dispose();
    return (error as Error).message;
  }
}

const opened = await openGpu();
const [gpu, reason] = typeof opened === "string" ? [undefined, opened] : [opened, ""];
const cpu = await createEngine({ threads: 1 });
afterAll(async () => {
  await Promise.all([gpu?.dispose(), cpu.dispose()]);
});

/** Kernels of the GPU against those of the CPU, both float32: relative L2. */
const TOLERANCE = 5e-6;

/** All graphs of an operator, forward and backward, as one program. */
function programOf(cases: readonly GradientCase[]) {
  const outputs: Record<string, Value> = {};
  const feeds: Record<string, Tensor> = {};
  for (const [i, { inputs, build, wrt }] of cases.entries()) {
    const values = inputs("float32").map((value, k) => {
      feeds[`x${i}_${k}`] = value;
      return input(`x${i}_${k}`, value.dtype, value.shape);
    });
    const y = build(...values);
    const shape = y.shape as readonly number[];
    const upstream = constantOf(new Numbers(3).fill(shape, 0.5, 1.5), shape);
    const loss = op.reduceSum(op.mul(y, upstream), { axes: shape.map((_, axis) => axis), keepdims: false });
    const trained = values.filter((x, k) => x.dtype === "float32" && (!wrt || wrt.includes(k)));
    outputs[`y${i}`] = y;
    for (const [k, slope] of gradients(loss, trained).entries()) outputs[`d${i}_${k}`] = slope;
  }
  return { outputs, feeds };
}

describe.skipIf(gpu === undefined)(`WebGPU${reason && ` (skipped: ${reason})`}`, () => {
  test.each(Object.entries(gradientCases))(
    "%s agrees with the CPU, forward and backward",
    async (_, cases) => {
      const { outputs: program, feeds } = programOf(cases);
      const outputs = lower(program, { QuantizedMatMul: dequantizedProducts }); // integers on the CPU
      const [actual, expected] = [await evaluate(gpu!, outputs, feeds), await evaluate(cpu, outputs, feeds)];
      for (const [name, value] of Object.entries(expected))
        expect(relativeL2(numbersOf(actual[name]!), numbersOf(value)), name).toBeLessThan(TOLERANCE);
    },
  );

  /**
   * Cast's cases go through float64 and int64, for which there are no kernels; ScatterND reshapes its int64 indices. Products
   * of integers are for the CPU alone.
   */
  const onCpu: ReadonlySet<OpName> = new Set(["Cast", "ScatterND", "QuantizeLinear", "QGemm", "BitwiseXor"]);

  test.each(Object.keys(gradientCases) as OpName[])(
    "%s runs on the GPU, or is known not to",
    async (name) => {
      const [{ inputs, build }] = gradientCases[name] as [GradientCase];
      const values = inputs("float32").map((value, k) => input(`x${k}`, value.dtype, value.shape));
      const { model } = emit(lower({ y: build(...values) }, lowerings.webgpu));
      const created = InferenceSession.create(model, {
        executionProviders: ["webgpu"],
        logSeverityLevel: 4,
        extra: { session: { disable_cpu_ep_fallback: "1" } },
      });
      const message = await created.then(
        (session) => session.release().then(() => ""),
        (error: Error) => error.message,
      );
      if (onCpu.has(name)) expect(message).toContain("fallback to CPU EP has been explicitly disabled");
      else expect(message).toBe("");
    },
  );

  test("cosines and sines are exact for the angles of long sequences", async () => {
    const angles = Array.from({ length: 2000 }, (_, i) => Math.fround((i - 500) * 7.3));
    const x = input("x", "float32", [angles.length]);
    const { cos, sin } = await evaluate(
      gpu!,
      { cos: op.cos(x), sin: op.sin(x) },
      { x: tensorOf(angles, [angles.length], "float32") },
    );
    // Angles up to 10,950 rad; WGSL's own functions err by more than 1e-4.
    expect(maxAbsDifference(numbersOf(cos!), angles.map(Math.cos))).toBeLessThan(1e-6);
    expect(maxAbsDifference(numbersOf(sin!), angles.map(Math.sin))).toBeLessThan(1e-6);
  });

  test("many repeated rows lose no update", async () => {
    const [rows, width, count] = [8, 64, 20_000];
    const table = input("table", "float32", [rows, width]);
    const indices = input("indices", "int64", [count]);
    const loss = op.reduceSum(op.gather(table, indices), { axes: [0, 1], keepdims: false });
    const { slope } = await evaluate(
      gpu!,
      { slope: gradients(loss, [table])[0]! },
      {
        indices: tensorOf(
          Array.from({ length: count }, (_, i) => i % rows),
          [count],
          "int64",
        ),
      },
    );
    expect(new Set(numbersOf(slope!))).toEqual(new Set([count / rows]));
  });

  test("symbolic sizes are computed on the CPU, once per run", async () => {
    const x = input("x", "float32", [symbol("batch"), symbol("sequence")]);
    const session = await gpu!.createSession({
      y: op.reshape(op.mul(x, 2), [symbol("sequence"), symbol("batch")]),
    });
    for (const shape of [
      [2, 3],
      [1, 5],
    ]) {
      const { outputs } = await session.run({ x: tensorOf(new Numbers(1).fill(shape), shape, "float32") });
      expect(outputs["y"]!.shape).toEqual(shape.toReversed());
    }
    await session.dispose();
  });

  test("a kept output feeds the next run", async () => {
    const session = await gpu!.createSession({ next: op.mul(input("x", "float32", [2]), 3) });
    const { kept } = await session.run({ x: tensorOf([1, 2], [2], "float32") }, { keep: ["next"] });
    const { outputs } = await session.run({ x: kept["next"]! });
    expect(numbersOf(outputs["next"]!)).toEqual([9, 18]);
    await session.dispose();
  });
});

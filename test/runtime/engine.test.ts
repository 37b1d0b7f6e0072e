import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import {
  constant,
  constantOf,
  dimAdd,
  input,
  op,
  type Shape,
  symbol,
  type Value,
} from "../../src/graph/index.ts";
import type { Device, Engine, ResidentTensor } from "../../src/runtime/index.ts";
import { createEngine, listDevices } from "../../src/runtime/node.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { evaluate, numbersOf, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const float = (name: string, shape: Shape): Value => input(name, "float32", shape);
const floats = (values: number[], shape: number[] = [values.length]): Tensor =>
  tensorOf(values, shape, "float32");

/** Some 30 GFLOP: a run of a second on one core. */
async function slowSession(on: Engine) {
  const x = float("x", [1024, 1024]);
  let y = x;
  for (let i = 0; i < 15; i++) y = op.matmul(y, x);
  const session = await on.createSession({ y: op.reduceSum(y, { axes: [0, 1] }) });
  return { session, feeds: { x: floats(new Array(1024 * 1024).fill(1e-3), [1024, 1024]) } };
}

async function withEngine<T>(use: (engine: Engine) => Promise<T>): Promise<T> {
  const own = await createEngine({ threads: 1 });
  try {
    return await use(own);
  } finally {
    await own.dispose();
  }
}

describe("the thread", () => {
  test("timers stay alive during a long run", async () => {
    const { session, feeds } = await slowSession(engine());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    const start = performance.now();
    let elapsed = 0;
    while (elapsed < 300) {
      await session.run(feeds);
      elapsed = performance.now() - start;
    }
    clearInterval(timer);
    await session.dispose();
    // One tick in ten that are due, on a machine that may be busy; a blocked thread has one for each run.
    expect(ticks).toBeGreaterThan(elapsed / 100);
  });

  test("a run that is cut off by disposing of the engine rejects at once", async () => {
    const own = await createEngine({ threads: 1 });
    const { session, feeds } = await slowSession(own);
    const running = session.run(feeds);
    const outcome = expect(running).rejects.toMatchObject({
      name: "RuntimeFailure",
      code: "engine-disposed",
      message: "The engine has been disposed of.",
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    const disposed = own.dispose();
    await outcome;
    await disposed;
  });

  /** Runs code in a process of its own, which has the exports of graph/ and runtime/. */
  async function inProcess(code: string): Promise<{ code: number; stdout: string; stderr: string }> {
    const source = (path: string) => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
    const script = `
      import { createEngine } from ${source("runtime/node.ts")};
      import { constantOf, op } from ${source("graph/index.ts")};
      const engine = await createEngine({ threads: 1 });
      const run = async (y) => (await engine.createSession({ y })).run({});
      ${code}`;
    const node = ["--import", "tsx", "--input-type=module", "--eval", script];
    return promisify(execFile)(process.execPath, node, { timeout: 50_000 }).then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    );
  }

  test("a process with an engine left open ends by itself", async () => {
    const code = "console.log((await run(op.mul(constantOf([3], [1]), 2))).outputs.y.data[0]);";
    expect(await inProcess(code)).toEqual({ code: 0, stdout: "6\n", stderr: "" });
  });

  test("a process that exits during a run keeps its exit code", async () => {
    // Ended inside ONNX Runtime, the process would abort: "terminate called after throwing an instance of 'Napi::Error'".
    const code = `
      const x = op.mul(op.full(1e-3, [1024, 1024]), op.cast(op.range(0, 1024), "float32"));
      let y = x;
      for (let i = 0; i < 15; i++) y = op.matmul(y, x);
      run(op.reduceSum(y, { axes: [0, 1] }));
      setTimeout(() => process.exit(7), 400);`;
    const { code: exitCode, stderr } = await inProcess(code);
    expect({ exitCode, stderr }).toEqual({ exitCode: 7, stderr: "" });
  });

  test("requests are answered to whoever asked", async () => {
    const session = await engine().createSession({ y: op.mul(float("x", [symbol("n")]), 2) });
    const runs = await Promise.all(
      [1, 2, 3, 4, 5].map(async (x) => numbersOf((await session.run({ x: floats([x]) })).outputs["y"]!)),
    );
    expect(runs).toEqual([[2], [4], [6], [8], [10]]);
    await session.dispose();
  });

  test("a program that is loaded as it is computes the same", async () => {
    const y = op.relu(op.add(op.mul(float("x", [symbol("n")]), 2), op.mul(op.full(3, [1]), 4)));
    const run = async (optimize: boolean) => {
      const session = await engine().createSession({ y }, { optimize });
      const { outputs } = await session.run({ x: floats([-7, 0, 1]) });
      await session.dispose();
      return numbersOf(outputs["y"]!);
    };
    expect(await run(false)).toEqual([0, 12, 14]);
    expect(await run(true)).toEqual([0, 12, 14]);
  });

  test.skipIf(process.platform !== "linux")("`threads` is how many threads one operator uses", async () => {
    const threads = () => readdirSync("/proc/self/task").length;
    const added = async (count: number): Promise<number> => {
      const own = await createEngine({ threads: count });
      const before = threads();
      const session = await own.createSession({ y: op.exp(float("x", [4])) });
      const after = threads();
      await session.dispose();
      await own.dispose();
      return after - before;
    };
    expect((await added(5)) - (await added(2))).toBe(3);
  });

  test.each([0, -1, 1.5, Number.NaN])("threads: %s is refused", async (threads) => {
    await expect(createEngine({ threads })).rejects.toThrow(
      `threads must be a positive integer, got ${threads}.`,
    );
  });
});

describe("devices", () => {
  test("the CPU is always there", async () => {
    expect(await listDevices()).toContain("cpu");
  });

  test("an unknown device is refused with what is there", async () => {
    await expect(createEngine({ device: "cpuu" as Device })).rejects.toMatchObject({
      name: "RuntimeFailure",
      code: "unknown-device",
      message: expect.stringMatching(
        /^Device "cpuu" is not available here\. Available: .*cpu.*Did you mean "cpu"\?$/,
      ),
    });
  });
});

describe("sessions", () => {
  test("a session that has been disposed of says so, and disposing again does nothing", async () => {
    const session = await engine().createSession({ y: op.exp(float("x", [1])) });
    await session.dispose();
    await session.dispose();
    await expect(session.run({ x: floats([1]) })).rejects.toMatchObject({
      name: "RuntimeFailure",
      code: "session-closed",
      message: "The session has been disposed of.",
    });
  });

  test("after its engine, a session has nothing left to dispose of", async () => {
    const session = await withEngine((own) => own.createSession({ y: op.exp(float("x", [1])) }));
    await session.dispose();
    await expect(session.run({ x: floats([1]) })).rejects.toThrow("The engine has been disposed of.");
  });

  test("outputs are written in place into tensors that stay, along any axis", async () => {
    const rows = symbol("rows");
    const session = await engine().createSession({
      y: op.mul(float("x", [2, rows, 3]), 2),
      z: op.neg(float("one", [1])),
    });
    const held = await engine().upload({ whole: floats(new Array(24).fill(-1), [2, 4, 3]) });
    const whole = held["whole"]!;
    const x = (count: number, from: number) =>
      floats(
        Array.from({ length: 6 * count }, (_, i) => from + i),
        [2, count, 3],
      );
    const write = (at: number) => ({ write: { y: { into: whole, axis: 1, at } } });
    const first = await session.run({ x: x(1, 0), one: floats([1]) }, write(1));
    expect(Object.keys(first.outputs)).toEqual(["z"]);
    const none = await session.run({ x: x(1, 0), one: floats([1]) }, { ...write(1), omit: ["z"] });
    expect(none).toEqual({ outputs: {}, kept: {} });
    expect(first.kept).toEqual({});
    await session.run({ x: x(2, 10), one: floats([1]) }, write(2));
    const reader = await engine().createSession({ copy: op.add(float("whole", [2, 4, 3]), 0) });
    const { outputs } = await reader.run({ whole });
    expect([...outputs["copy"]!.data]).toEqual([
      ...[-1, -1, -1, 0, 2, 4, 20, 22, 24, 26, 28, 30],
      ...[-1, -1, -1, 6, 8, 10, 32, 34, 36, 38, 40, 42],
    ]);
    for (const [options, code] of [
      [write(3), "wrong-destination"], // two rows, and there is room for one
      [write(-1), "wrong-destination"],
      [{ write: { z: { into: whole, axis: 0, at: 0 } } }, "wrong-destination"],
      [{ omit: ["w"] }, "unknown-output"],
      [{ write: { w: { into: whole, axis: 0, at: 0 } } }, "unknown-output"],
    ] as const)
      await expect(session.run({ x: x(2, 0), one: floats([1]) }, options)).rejects.toMatchObject({ code });
    whole.dispose();
    await expect(session.run({ x: x(1, 0), one: floats([1]) }, write(0))).rejects.toMatchObject({
      code: "resident-gone",
    });
    await session.dispose();
    await reader.dispose();
  });

  test("what is uploaded is a copy, also of a part of a buffer", async () => {
    const data = Float32Array.of(9, 1, 2, 9);
    const { x } = await engine().upload({ x: tensor("float32", [2], data.subarray(1, 3)) });
    data.fill(0);
    const session = await engine().createSession({ y: op.add(float("x", [2]), 1) });
    expect([...(await session.run({ x: x! })).outputs["y"]!.data]).toEqual([2, 3]);
    x!.dispose();
    await session.dispose();
  });

  test("weights that are laid out anew give the same products", async () => {
    const w = constant(tensor("float32", [3, 2], Float32Array.of(1, 2, 3, 4, 5, 6)));
    const build = () => ({ y: op.gemm(float("x", [symbol("n"), 2]), w, { transB: true }) });
    for (const prepack of [false, true]) {
      const session = await engine().createSession(build(), { prepack });
      const { outputs } = await session.run({ x: floats([1, 10, 2, 20], [2, 2]) });
      expect([...outputs["y"]!.data]).toEqual([21, 43, 65, 42, 86, 130]);
      await session.dispose();
    }
  });

  test("a failure at run time carries ONNX Runtime's words", async () => {
    const table = float("table", [4, 2]);
    const rows = op.gather(table, input("rows", "int64", [1]));
    const session = await engine().createSession({ rows_out: rows });
    const feeds = { table: floats(new Array(8).fill(0), [4, 2]) };
    await expect(session.run({ ...feeds, rows: tensorOf([9], [1], "int64") })).rejects.toMatchObject({
      name: "RuntimeFailure",
      code: "session-run",
      message: expect.stringMatching(/Gather.*idx=9.*\[-4,3\]/s),
    });
    // And the session lives on.
    await session.run({ ...feeds, rows: tensorOf([3], [1], "int64") });
    await session.dispose();
  });

  test("a graph that ONNX Runtime cannot load carries its words", async () => {
    const doubles = input("x", "float64", [2]);
    await expect(engine().createSession({ y: op.erf(doubles) })).rejects.toMatchObject({
      name: "RuntimeFailure",
      code: "session-create",
      message: expect.stringContaining("Erf"),
    });
  });

  test.each(["bfloat16", "float8e4m3fn"] as const)("%s does not pass to JavaScript", async (dtype) => {
    const x = input("x", dtype, [2]);
    await expect(engine().createSession({ y: op.cast(x, "float32") })).rejects.toThrow(
      `Input "x" is ${dtype}, which ONNX Runtime does not pass to JavaScript; cast it in the graph.`,
    );
    await expect(engine().createSession({ y: op.cast(float("x", [2]), dtype) })).rejects.toThrow(
      `Output "y" is ${dtype}`,
    );
  });

  test("every other dtype goes in and comes back", async () => {
    for (const [dtype, values] of [
      ["float64", [1.5, -2]],
      ["float32", [1.5, -2]],
      ["float16", [0x3e00, 0xc000]],
      ["int64", [1, -2]],
      ["int32", [1, -2]],
      ["int16", [1, -2]],
      ["int8", [1, -2]],
      ["uint32", [1, 2]],
      ["uint16", [1, 2]],
      ["uint8", [1, 2]],
      ["bool", [1, 0]],
    ] as const) {
      const x = tensorOf(values, [2], dtype);
      const { y } = await evaluate(engine(), { y: op.identity(input("x", dtype, [2])) }, { x });
      expect(y, dtype).toEqual(x);
    }
  });
});

describe("feeds", () => {
  const [batch, past, sequence] = [symbol("batch"), symbol("past"), symbol("sequence")];
  const x = float("x", [batch, 2]);
  const cases: [name: string, feeds: Record<string, Tensor>, message: string][] = [
    ["missing", {}, 'Input "x" is not fed.'],
    ["misspelled", { X: floats([1, 2], [1, 2]) }, 'Input "x" is not fed. Did you mean it by "X"?'],
    [
      "of another dtype",
      { x: tensorOf([1, 2], [1, 2], "float64") },
      'Input "x" needs float32[batch, 2], got float64[1, 2].',
    ],
    [
      "of another size",
      { x: floats([1, 2, 3], [1, 3]) },
      'Input "x" needs float32[batch, 2], got float32[1, 3].',
    ],
    ["of another rank", { x: floats([1, 2]) }, 'Input "x" needs float32[batch, 2], got float32[2].'],
    [
      "shorter than their shape",
      { x: { dtype: "float32", shape: [3, 2], data: new Float32Array(4) } },
      'Input "x" has 4 elements, its shape [3, 2] says 6.',
    ],
  ];

  test.each(cases)("that are %s are refused by the name of the input", async (_, feeds, message) => {
    const session = await engine().createSession({ y: op.exp(x) });
    await expect(session.run(feeds)).rejects.toMatchObject({ name: "RuntimeFailure", message });
    await session.dispose();
  });

  test("that disagree on a symbol are refused: ONNX Runtime would broadcast a 1", async () => {
    const session = await engine().createSession({ y: op.add(x, float("z", [batch, 2])) });
    await expect(session.run({ x: floats([1, 2, 3, 4], [2, 2]), z: floats([1, 2], [1, 2]) })).rejects.toThrow(
      'Input "z" has size 1 at axis 0, where "batch" is 2 in the other inputs.',
    );
    await session.dispose();
  });

  test("that disagree with a sum of symbols are refused", async () => {
    const mask = float("mask", [dimAdd(past, sequence)]);
    const all = op.concat([float("past", [past]), float("x", [sequence])], 0);
    const session = await engine().createSession({ y: op.mul(all, mask) });
    await expect(session.run({ past: floats([1]), x: floats([2, 3]), mask: floats([1, 1]) })).rejects.toThrow(
      'Input "mask" has size 2 at axis 0, where "past + sequence" is 3 in the other inputs.',
    );
    const { outputs } = await session.run({ past: floats([1]), x: floats([2, 3]), mask: floats([1, 0, 1]) });
    expect(numbersOf(outputs["y"]!)).toEqual([1, 0, 3]);
    await session.dispose();
  });

  test("that nothing asks for are left out", async () => {
    const { y } = await evaluate(
      engine(),
      { y: op.exp(x) },
      { x: floats([0, 0], [1, 2]), more: floats([1]) },
    );
    expect(numbersOf(y!)).toEqual([1, 1]);
  });

  test("may be views, and are neither moved nor changed", async () => {
    const all = Float32Array.of(9, 1, 2, 9);
    const view = tensor("float32", [1, 2], all.subarray(1, 3));
    const { y } = await evaluate(engine(), { y: op.neg(x) }, { x: view });
    expect(numbersOf(y!)).toEqual([-1, -2]);
    expect([...all]).toEqual([9, 1, 2, 9]);
  });
});

describe("tensors that stay in the engine", () => {
  const n = symbol("n");
  const grow = op.concat([float("state", [n]), constantOf([1], [1])], 0);

  test("feed later runs, of other sessions too", async () => {
    const [session, sum] = await Promise.all([
      engine().createSession({ next: grow, doubled: op.mul(grow, 2) }),
      engine().createSession({ y: op.reduceSum(float("state", [n]), { axes: [0] }) }),
    ]);
    let state: Tensor | ResidentTensor = floats([5]);
    for (let step = 0; step < 3; step++) {
      const { outputs, kept } = await session.run({ state }, { keep: ["next"] });
      expect(Object.keys(outputs)).toEqual(["doubled"]);
      if ("dispose" in state) state.dispose();
      state = kept["next"]!;
      expect(state).toMatchObject({ dtype: "float32", shape: [step + 2] });
    }
    const { outputs } = await sum.run({ state });
    expect(numbersOf(outputs["y"]!)).toEqual([8]);
    // They outlive the session that made them.
    await session.dispose();
    expect(numbersOf((await sum.run({ state })).outputs["y"]!)).toEqual([8]);
    await sum.dispose();
  });

  test("are gone once disposed of, and disposing again does nothing", async () => {
    const session = await engine().createSession({ next: grow });
    const { kept } = await session.run({ state: floats([1]) }, { keep: ["next"] });
    const state = kept["next"]!;
    state.dispose();
    state.dispose();
    await expect(session.run({ state })).rejects.toMatchObject({
      code: "resident-gone",
      message: "A tensor that was kept in the engine has been released.",
    });
    await session.dispose();
  });

  test("are checked like other feeds", async () => {
    const session = await engine().createSession({ next: grow });
    const other = await engine().createSession({ y: op.exp(float("state", [7])) });
    const { kept } = await session.run({ state: floats([1]) }, { keep: ["next"] });
    await expect(other.run({ state: kept["next"]! })).rejects.toThrow(
      'Input "state" needs float32[7], got float32[2].',
    );
    await Promise.all([session.dispose(), other.dispose()]);
  });

  test("are outputs that exist", async () => {
    const session = await engine().createSession({ next: grow });
    await expect(session.run({ state: floats([1]) }, { keep: ["nxt"] })).rejects.toThrow(
      'There is no output "nxt". Outputs: next.',
    );
    await session.dispose();
  });
});

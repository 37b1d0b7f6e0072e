import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/config-options.ts";
import { getPeftModel, LoraConfig, type PeftModel } from "../../src/adapters/index.ts";
import { type Batch, IGNORED_LABEL } from "../../src/data/index.ts";
import { gradients, input, nodesOf, op, symbol } from "../../src/graph/index.ts";
import type { CausalLM } from "../../src/models/index.ts";
import { causalNoise } from "../../src/models/index.ts";
import { Dropout } from "../../src/nn/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { trainingProgram } from "../../src/training/program.ts";
import { EvaluationStep, TrainingStep } from "../../src/training/step.ts";
import { relativeL2 } from "../support/close.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { evaluate, Numbers, sharedEngine } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const ROWS = 4096;
const FEATURES = 256;

/** The noise of a step, as training feeds it, for `rows` rows. */
const noise = (seed: number, rows = ROWS): Tensor =>
  causalNoise(
    { inputIds: { dtype: "int64", shape: [rows, 1], data: new BigInt64Array(rows) } } as unknown as Batch,
    seed,
  )["dropout_noise"]!;

type MaskOptions = { p: number; layer: number; seed: number };

/** Runs a dropout over `x`. */
async function drop(
  { p, layer, seed }: MaskOptions,
  x: Float32Array = new Float32Array(ROWS * FEATURES).fill(1),
  features = FEATURES,
): Promise<Float32Array> {
  const rows = x.length / features;
  const dropout = new Dropout(p, layer);
  const shape = [symbol("rows"), features];
  dropout.noise = op.reshape(input("noise", "int32", [symbol("rows"), 1]), [symbol("rows")]);
  const outputs = { y: dropout.forward(input("x", "float32", shape)) };
  const feeds = { x: tensor("float32", [rows, features], x), noise: noise(seed, rows) };
  return (await evaluate(engine(), outputs, feeds))["y"]!.data as Float32Array;
}

/** 1 where an element of a row of ones was kept. */
const maskOf = async (options: MaskOptions): Promise<Uint8Array> =>
  Uint8Array.from(await drop(options), (y) => (y === 0 ? 0 : 1));

/** Pearson's correlation of two masks that keep with probability 1 - p. */
function correlation(a: ArrayLike<number>, b: ArrayLike<number>, p: number): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - (1 - p)) * (b[i]! - (1 - p));
  return sum / (a.length * p * (1 - p));
}

/** Correlations of all pairs: the largest in size, and the mean square. */
function correlations(series: readonly Uint8Array[], p: number): { largest: number; meanSquare: number } {
  let [largest, squares, pairs] = [0, 0, 0];
  for (let i = 0; i < series.length; i++)
    for (let j = 0; j < i; j++) {
      const value = correlation(series[i]!, series[j]!, p);
      largest = Math.max(largest, Math.abs(value));
      squares += value ** 2;
      pairs++;
    }
  return { largest, meanSquare: squares / pairs };
}

const columnsOf = (mask: Uint8Array): Uint8Array[] =>
  Array.from({ length: FEATURES }, (_, column) =>
    Uint8Array.from({ length: ROWS }, (_, row) => mask[row * FEATURES + column]!),
  );
const rowsOf = (mask: Uint8Array, count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, row) => mask.subarray(row * FEATURES, (row + 1) * FEATURES));
const mean = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
};

// A bound of six standard deviations is passed by chance once in 500 million comparisons.
describe.each([0.05, 0.1, 0.3, 0.5, 0.9])("p = %d", (p) => {
  const deviation = Math.sqrt(p * (1 - p));

  test("keeps a share of 1 - p: overall, in every column, in every row", async () => {
    const mask = await maskOf({ p, layer: 1, seed: 2 });
    expect(Math.abs(mean(mask) - (1 - p))).toBeLessThan((6 * deviation) / Math.sqrt(mask.length));
    for (const column of columnsOf(mask))
      expect(Math.abs(mean(column) - (1 - p))).toBeLessThan((6 * deviation) / Math.sqrt(ROWS));
    // The binomial distribution has a heavier tail than the normal one for small p; seven instead of six.
    for (const row of rowsOf(mask, ROWS))
      expect(Math.abs(mean(row) - (1 - p))).toBeLessThan((7 * deviation) / Math.sqrt(FEATURES));
  });

  test("preserves the mean", async () => {
    const numbers = new Numbers(5);
    const x = Float32Array.from({ length: ROWS * FEATURES }, () => numbers.next(0.5, 1.5));
    const y = await drop({ p, layer: 1, seed: 3 }, x);
    const scale = Math.sqrt(p / (1 - p)) * 1.04; // deviation of y about x, with E x² = 1.083
    expect(Math.abs(mean(y) - mean(x))).toBeLessThan((6 * scale) / Math.sqrt(x.length));
    for (let i = 0; i < 1000; i++) if (y[i] !== 0) expect(y[i]! / x[i]!).toBeCloseTo(1 / (1 - p), 5);
  });

  test("columns do not depend on one another", async () => {
    const { largest, meanSquare } = correlations(columnsOf(await maskOf({ p, layer: 1, seed: 2 })), p);
    expect(largest).toBeLessThan(6 / Math.sqrt(ROWS));
    expect(meanSquare * ROWS).toBeGreaterThan(0.9); // exactly 1 in the mean for independent masks
    expect(meanSquare * ROWS).toBeLessThan(1.1);
  });

  test("nor do rows", async () => {
    const { largest, meanSquare } = correlations(rowsOf(await maskOf({ p, layer: 1, seed: 2 }), 300), p);
    expect(largest).toBeLessThan(10 / Math.sqrt(FEATURES)); // products of rare events have a heavy tail
    expect(meanSquare * FEATURES).toBeGreaterThan(0.9);
    expect(meanSquare * FEATURES).toBeLessThan(1.1);
  });

  test("nor do layers, steps and neighbouring features of them", async () => {
    const mask = await maskOf({ p, layer: 1, seed: 2 });
    const bound = 6 / Math.sqrt(mask.length);
    for (const other of [
      { layer: 2, seed: 2 },
      { layer: -1, seed: 2 },
      { layer: 1, seed: 3 },
      { layer: 2, seed: 3 },
    ]) {
      const second = await maskOf({ p, ...other });
      expect(Math.abs(correlation(mask, second, p)), JSON.stringify(other)).toBeLessThan(bound);
      expect(Math.abs(correlation(mask.subarray(1), second.subarray(0, -1), p))).toBeLessThan(1.1 * bound);
    }
  });
});

describe("the mask", () => {
  test("is the same for the same seed and layer", async () => {
    const options = { p: 0.4, layer: 7, seed: 8 };
    expect(Buffer.compare(await maskOf(options), await maskOf(options))).toBe(0);
  });

  test("is used by the gradient too", async () => {
    const [rows, features, p] = [64, 24, 0.3];
    const numbers = new Numbers(9);
    const values = (n: number) => Float32Array.from({ length: n }, () => numbers.next(0.5, 1.5));
    const [x, upstream] = [values(rows * features), values(rows * features)];
    const dropout = new Dropout(p, 4);
    dropout.noise = input("noise", "int32", [rows]);
    const from = input("x", "float32", [rows, features]);
    const y = dropout.forward(from);
    const loss = op.reduceSum(op.mul(y, input("upstream", "float32", [rows, features])), {
      axes: [0, 1],
      keepdims: false,
    });
    const shape = [rows, features];
    const { y: dropped, dx } = await evaluate(
      engine(),
      { y, dx: gradients(loss, [from])[0]! },
      {
        x: tensor("float32", shape, x),
        upstream: tensor("float32", shape, upstream),
        noise: { ...noise(6, rows), shape: [rows] },
      },
    );
    const [after, slope] = [dropped!.data as Float32Array, dx!.data as Float32Array];
    expect(after.filter((value) => value === 0).length).toBeGreaterThan(300);
    const expected = after.map((value, i) => (value / x[i]!) * upstream[i]!);
    expect(relativeL2(slope, expected)).toBeLessThan(1e-6);
    expect(slope.map((value) => Number(value === 0))).toEqual(after.map((value) => Number(value === 0)));
  });

  test("is not there in evaluation, nor with p = 0", () => {
    const x = input("x", "float32", [3, 5]);
    expect(new Dropout(0.5, 1).forward(x)).toBe(x);
    const none = new Dropout(0, 1);
    none.noise = input("noise", "int32", [3]);
    expect(none.forward(x)).toBe(x);
  });

  test("drops nearly all with p close to 1, and nearly none close to 0", async () => {
    expect(mean(await maskOf({ p: 0.9999, layer: 1, seed: 1 }))).toBeCloseTo(0.0001, 3);
    expect(mean(await maskOf({ p: 0.0001, layer: 1, seed: 1 }))).toBeCloseTo(0.9999, 3);
    expect(mean(await maskOf({ p: 1 - 2 ** -40, layer: 1, seed: 1 }))).toBe(0);
  });
});

describe("in a model", () => {
  const reference = new ReferenceCase(
    fileURLToPath(new URL("../vectors/models/llama-lm-head-lora", import.meta.url)),
  );
  const adapted = async (options: LoraConfigOptions): Promise<PeftModel<CausalLM>> =>
    getPeftModel(
      await reference.loadBase(),
      new LoraConfig({ r: 4, loraAlpha: 16, initLoraWeights: false, ...options }),
      { seed: 2 },
    );
  const run = async (peft: PeftModel<CausalLM>, seed: number, batch = reference.batch()) => {
    const step = new TrainingStep(peft.baseModel, engine());
    const result = await step.run(batch, { lossScale: 1, seed });
    await step.dispose();
    return result;
  };
  const evaluationLoss = async (peft: PeftModel<CausalLM>) => {
    const step = new EvaluationStep(peft.baseModel, engine());
    const loss = await step.run(reference.batch());
    await step.dispose();
    return loss;
  };
  const inputsOf = async (peft: PeftModel<CausalLM>): Promise<string[]> => {
    const session = await engine().createSession(trainingProgram(peft.baseModel).outputs);
    const names = session.inputs.map(({ name }) => name);
    await session.dispose();
    return names;
  };

  test("training differs from evaluation, and repeats with its seed", async () => {
    const peft = await adapted({ targetModules: ["q_proj", "down_proj"], loraDropout: 0.3 });
    const first = await run(peft, 1);
    expect(await run(peft, 1)).toEqual(first);
    const second = await run(peft, 2);
    expect(second.loss).not.toBe(first.loss);
    const whole = await evaluationLoss(peft);
    for (const { loss } of [first, second]) expect(Math.abs(loss / whole - 1)).toBeGreaterThan(1e-4);

    const without = await adapted({ targetModules: ["q_proj", "down_proj"], loraDropout: 0 });
    expect(await evaluationLoss(without)).toBe(whole);
    expect((await run(without, 1)).loss).toBeCloseTo(whole, 3);
  });

  test("without it no noise is asked for and no node is made", async () => {
    const [without, with_] = [0, 0.1].map((loraDropout) =>
      adapted({ targetModules: ["q_proj"], loraDropout }),
    );
    expect(await inputsOf(await without!)).not.toContain("dropout_noise");
    expect(await inputsOf(await with_!)).toContain("dropout_noise");
    const operators = async (peft: Promise<PeftModel<CausalLM>>) =>
      nodesOf(Object.values(trainingProgram((await peft).baseModel).outputs)).map(({ op }) => op);
    expect(await operators(without!)).not.toContain("GreaterOrEqual");
    expect(await operators(with_!)).toContain("GreaterOrEqual");
  });

  test("the head's masks belong to places, however few of them have labels", async () => {
    const peft = await adapted({ targetModules: ["lm_head"], loraDropout: 0.5 });
    const batch = reference.batch();
    const only = (keep: (place: number) => boolean): Batch => ({
      ...batch,
      labels: {
        ...batch.labels,
        data: batch.labels.data.map((label, place) => (keep(place) ? label : BigInt(IGNORED_LABEL))),
      },
    });
    const whole = await run(peft, 5);
    const parts = [
      await run(
        peft,
        5,
        only((i) => i % 3 === 0),
      ),
      await run(
        peft,
        5,
        only((i) => i % 3 !== 0),
      ),
    ];
    // Losses and gradients are sums over places.
    expect(parts[0]!.loss + parts[1]!.loss).toBeCloseTo(whole.loss, 3);
    for (const [name, gradient] of whole.gradients) {
      const [a, b] = parts.map(({ gradients }) => gradients.get(name)!);
      expect(
        relativeL2(
          a!.map((value, i) => value + b![i]!),
          gradient,
        ),
      ).toBeLessThan(1e-5);
    }
    expect(whole.loss).not.toBeCloseTo(await evaluationLoss(peft), 2);
  });

  test("the head's gradient is the slope of the loss with the same masks", async () => {
    const peft = await adapted({ targetModules: ["lm_head", "o_proj"], loraDropout: 0.4 });
    const { gradients } = await run(peft, 6);
    for (const [name, { data }] of peft.trainableParameters()) {
      // Along the gradient, d loss = h ‖g‖; h small against the curvature, large against rounding.
      const gradient = gradients.get(name)!;
      const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
      const h = 3e-3 / Math.max(1, norm);
      const move = (by: number) => {
        for (let i = 0; i < gradient.length; i++) data!.data[i]! += (by * gradient[i]!) / norm;
      };
      move(h);
      const above = (await run(peft, 6)).loss;
      move(-2 * h);
      const below = (await run(peft, 6)).loss;
      move(h);
      expect(Math.abs((above - below) / (2 * h) / norm - 1), name).toBeLessThan(0.02);
    }
  });
});

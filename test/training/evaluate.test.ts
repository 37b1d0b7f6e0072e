import { expect, test } from "vitest";
import { collate } from "../../src/data/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import { evaluate } from "../../src/training/index.ts";
import { EvaluationStep } from "../../src/training/step.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { referenceCase } from "./trainer-runs.ts";

const engine = sharedEngine({ threads: 1 });

/** The engine, noting how long the examples of each batch are. */
function watched(lengths: number[][]): Engine {
  return {
    device: "cpu",
    version: "",
    dispose: async () => undefined,
    upload: (tensors) => engine().upload(tensors),
    async createSession(outputs) {
      const session = await engine().createSession(outputs);
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        dispose: () => session.dispose(),
        run(feeds, options) {
          const { data, shape } = feeds["attention_mask"] as Tensor<"float32">;
          const [rows, width] = shape as [number, number];
          const row = (i: number) => data.subarray(i * width, (i + 1) * width).reduce((a, b) => a + b, 0);
          lengths.push(Array.from({ length: rows }, (_, i) => row(i)));
          return session.run(feeds, options);
        },
      };
    },
  };
}

test("long examples come first, with those of their length, and the mean is that of each alone", async () => {
  const reference = referenceCase("qwen2-sliding-window"); // 13 9 16 12 8 15 11 tokens
  const [model, dataset] = [await reference.loadBase(), reference.dataset()];
  const step = new EvaluationStep(model, engine());
  let [sum, labelTokens] = [0, 0];
  for (let i = 0; i < dataset.length; i++) {
    const batch = collate([await dataset.get(i)], { padTokenId: 0 });
    sum += await step.run(batch);
    labelTokens += batch.labelTokens;
  }
  await step.dispose();
  for (let time = 0; time < 2; time++) {
    const [lengths, done]: [number[][], number[]] = [[], []];
    const result = await evaluate(model, dataset, {
      engine: watched(lengths),
      padTokenId: 0,
      batchSize: 3,
      onProgress: (count) => done.push(count),
    });
    expect(lengths).toEqual([[16, 15, 13], [12, 11, 9], [8]]);
    expect(done).toEqual([3, 6, 7]);
    expect(result.labelTokens).toBe(labelTokens);
    expect(Math.abs(result.loss / (sum / labelTokens) - 1)).toBeLessThan(1e-6);
  }
});

test("the order stays where positions depend on a batch's longest example", async () => {
  const reference = referenceCase("llama-dynamic-rope"); // 18 11 18 9 18 14 18 tokens
  const lengths: number[][] = [];
  const options = { engine: watched(lengths), padTokenId: 0, batchSize: 2 };
  const { expected } = reference;
  const { loss } = await evaluate(await reference.loadBase(), reference.dataset(), options);
  expect(lengths).toEqual([[18, 11], [18, 9], [18, 14], [18]]);
  expect(Math.abs(loss / expected.evaluation.base.loss - 1)).toBeLessThan(1e-5);
});

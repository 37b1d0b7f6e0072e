import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Engine } from "../../src/runtime/index.ts";
import { createEngine } from "../../src/runtime/node.ts";
import type { Tensor } from "../../src/tensor/index.ts";
import { evaluate, Trainer } from "../../src/training/index.ts";
import { ReferenceCase } from "../support/reference-case.ts";

// Default RoPE is relative, so the side of the padding changes nothing but rounding; masks must be right for that to hold.
const reference = new ReferenceCase(fileURLToPath(new URL("../vectors/models/llama-qv", import.meta.url)));
let engine: Engine;
beforeAll(async () => {
  engine = await createEngine({ threads: 1 });
});
afterAll(() => engine.dispose());

const sides = ["right", "left"] as const;

/** The engine, noting the sides on which the batches that it is fed are padded. */
function watched(seen: Set<string>): Engine {
  return {
    device: engine.device,
    version: engine.version,
    dispose: async () => undefined,
    upload: (tensors) => engine.upload(tensors),
    async createSession(outputs) {
      const session = await engine.createSession(outputs);
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        dispose: () => session.dispose(),
        run(feeds, options) {
          const { data, shape } = feeds["attention_mask"] as Tensor<"float32">;
          const width = shape[1]!;
          for (let start = 0; start < data.length; start += width) {
            if (data[start] === 0) seen.add("left");
            if (data[start + width - 1] === 0) seen.add("right");
          }
          return session.run(feeds, options);
        },
      };
    },
  };
}

test("training gives the same losses with padding on either side", async () => {
  const losses = await Promise.all(
    sides.map(async (paddingSide) => {
      const options = { maxSteps: 4, batchSize: 3, learningRate: 1e-2, shuffle: false, paddingSide };
      const seen = new Set<string>();
      const trainer = new Trainer({
        model: await reference.loadAdapted(),
        trainDataset: reference.dataset(),
        engine: watched(seen),
        ...options,
      });
      const { steps } = await trainer.train();
      expect([...seen]).toEqual([paddingSide]);
      return steps.map(({ loss }) => loss);
    }),
  );
  for (const [i, loss] of losses[0]!.entries())
    expect(Math.abs(loss / losses[1]![i]! - 1)).toBeLessThan(1e-5);
});

test("evaluation gives the same loss with padding on either side", async () => {
  const model = await reference.loadBase();
  const [right, left] = await Promise.all(
    sides.map((paddingSide) =>
      evaluate(model, reference.dataset(), { engine, padTokenId: 0, batchSize: 3, paddingSide }),
    ),
  );
  expect(left!.labelTokens).toBe(right!.labelTokens);
  expect(Math.abs(left!.loss / right!.loss - 1)).toBeLessThan(1e-5);
});

import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Batch, collate, type Example } from "../../src/data/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { EvaluationStep, type StepResult, TrainingStep } from "../../src/training/step.ts";
import { relativeL2 } from "../support/close.ts";
import { ReferenceCase, referenceCases } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";

const LOSS = 1e-5; // relative
const GRADIENT = 1e-5; // relative L2, each tensor
const models = fileURLToPath(new URL("../vectors/models", import.meta.url));
const engine = sharedEngine({ threads: 1 });
const sum = { lossScale: 1, seed: 0 };

async function examplesOf(reference: ReferenceCase): Promise<Example[]> {
  const dataset = reference.dataset();
  return Promise.all(Array.from({ length: dataset.length }, (_, i) => dataset.get(i)));
}

function expectEqual(packed: StepResult, plain: StepResult): void {
  expect(Math.abs(packed.loss / plain.loss - 1)).toBeLessThan(LOSS);
  for (const [name, gradient] of packed.gradients)
    expect(relativeL2(gradient, plain.gradients.get(name)!), name).toBeLessThan(GRADIENT);
}

// Sliding windows, every scaling of RoPE (dynamic: by the longest example, not the row), biases, tied weights …
describe.each(referenceCases(models).map((reference) => [reference.expected.name, reference] as const))(
  "%s",
  (_, reference) => {
    test("packed rows have the loss and gradients of padded ones", async () => {
      const examples = await examplesOf(reference);
      const options = { padTokenId: reference.expected.padTokenId };
      const peft = await reference.loadAdapted();
      const step = new TrainingStep(peft.baseModel, engine());
      const plain = await step.run(collate(examples, options), sum);
      for (const side of ["right", "left"] as const) {
        const rows = [
          [4, 0, 1],
          [5, 3, 6, 2],
        ];
        const packed = collate(examples, { ...options, side, rows });
        expectEqual(await step.run(packed, sum), plain);
      }
      await step.dispose();
    });
  },
);

test.each(["llama-qv", "mistral-sliding-window", "qwen2-layer-types"])(
  "%s: any packing has the sum of the examples' own losses",
  async (name) => {
    const reference = new ReferenceCase(`${models}/${name}`);
    const examples = await examplesOf(reference);
    const options = { padTokenId: reference.expected.padTokenId };
    const { baseModel } = await reference.loadAdapted();
    const step = new EvaluationStep(baseModel, engine());
    const own: number[] = [];
    for (const example of examples) own.push(await step.run(collate([example], options)));
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray([...examples.keys()], { minLength: 1 }),
        fc.array(fc.boolean(), { minLength: examples.length, maxLength: examples.length }),
        fc.constantFrom("left" as const, "right" as const),
        async (chosen, ends, side) => {
          const rows: number[][] = [[]];
          for (const position of chosen.keys()) {
            if (ends[position] && rows.at(-1)!.length > 0) rows.push([]);
            rows.at(-1)!.push(position);
          }
          const batch = collate(
            chosen.map((i) => examples[i]!),
            { ...options, side, rows },
          );
          const expected = chosen.reduce((total, i) => total + own[i]!, 0);
          expect(Math.abs((await step.run(batch)) / expected - 1)).toBeLessThan(LOSS);
        },
      ),
      { numRuns: 25 },
    );
    await step.dispose();
  },
);

test("what keeps examples apart is the segments and the positions", async () => {
  const reference = new ReferenceCase(`${models}/llama-qv`);
  const examples = await examplesOf(reference);
  const batch = collate(examples, { padTokenId: 0, rows: [[0, 1, 2, 3, 4, 5, 6]] });
  const { baseModel } = await reference.loadAdapted();
  const step = new EvaluationStep(baseModel, engine());
  const { shape, data } = batch.segments!;
  const lossOf = (change: Partial<Batch>) => step.run({ ...batch, ...change });
  const right = await lossOf({});
  const mixed = await lossOf({ segments: tensor("int64", shape, data.slice().fill(1n)) });
  expect(Math.abs(mixed / right - 1)).toBeGreaterThan(1e-4);
  const apart = batch.positionIds!.data.map((position) => 5n * position);
  const stretched = await lossOf({ positionIds: tensor("int64", shape, apart) });
  expect(Math.abs(stretched / right - 1)).toBeGreaterThan(1e-4);
  await step.dispose();
});

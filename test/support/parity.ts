import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Batch } from "../../src/data/index.ts";
import { type CausalLM, causalFeeds, causalInputs } from "../../src/models/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import { createEngine } from "../../src/runtime/node.ts";
import { tensor } from "../../src/tensor/index.ts";
import { AdamW } from "../../src/training/optimizers.ts";
import { EvaluationStep, TrainingStep } from "../../src/training/step.ts";
import { maxAbsDifference, relativeL2 } from "./close.ts";
import type { ReferenceCase } from "./reference-case.ts";

/** Tolerances of the design: what "agrees with PyTorch and PEFT in fp32" means. */
const LOGITS = 1e-4; // max abs
const GRADIENT = 1e-4; // relative L2, each tensor
const LOSS = 1e-5; // relative, each step
const WEIGHTS = 1e-4; // relative L2 after ten steps

/** Logits [batch, sequence, vocabulary] of a whole batch. */
export async function logitsOf(model: CausalLM, engine: Engine, batch: Batch): Promise<Float32Array> {
  const session = await engine.createSession({
    logits: model.logits(model.hiddenStates(causalInputs()).hidden),
  });
  const { outputs } = await session.run({
    ...(await model.parameterFeeds()),
    ...causalFeeds(model, batch, { lossScale: 1 }),
  });
  await session.dispose();
  return outputs["logits"]!.data as Float32Array;
}

/** The rows of real tokens: what a model computes on padding means nothing. */
export function realRows(values: Float32Array, { attentionMask }: Batch): Float32Array {
  const width = values.length / attentionMask.data.length;
  return Float32Array.from(
    [...attentionMask.data].flatMap((real, row) =>
      real ? [...values.subarray(row * width, (row + 1) * width)] : [],
    ),
  );
}

/** One suite per case: logits, loss, gradients, ten optimizer steps, evaluation. */
export function describeParity(cases: readonly ReferenceCase[]): void {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createEngine({ threads: 1 });
  });
  afterAll(() => engine.dispose());

  describe.each(cases.map((reference) => [reference.expected.name, reference] as const))(
    "%s",
    (_, reference) => {
      const { expected } = reference;

      test("selects the same modules and counts the same parameters", async () => {
        const peft = await reference.loadAdapted();
        expect(
          peft.selection.targets.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling })),
        ).toEqual(expected.targets);
        expect([...peft.stateDict().keys()].sort()).toEqual([...expected.adapterKeys].sort());
        expect([...peft.trainableParameters().keys()].sort()).toEqual([...expected.trainableKeys].sort());
        expect(peft.parameterCounts()).toEqual({
          trainable: expected.trainableParameters,
          total: expected.totalParameters,
        });
      });

      test("logits agree, without and with the adapter", async () => {
        const recorded = await reference.tensors();
        const batch = reference.batch();
        const base = await logitsOf(await reference.loadBase(), engine, batch);
        expect(
          maxAbsDifference(realRows(base, batch), realRows(recorded.get("logits_base")!, batch)),
        ).toBeLessThan(LOGITS);
        const adapted = await logitsOf((await reference.loadAdapted()).baseModel, engine, batch);
        expect(
          maxAbsDifference(realRows(adapted, batch), realRows(recorded.get("logits")!, batch)),
        ).toBeLessThan(LOGITS);
      });

      test("loss and every gradient agree", async () => {
        const recorded = await reference.tensors();
        const peft = await reference.loadAdapted();
        const step = new TrainingStep(peft.baseModel, engine);
        const { loss, gradients } = await step.run(reference.batch(), {
          lossScale: 1 / expected.batchLabelTokens,
          seed: 0,
        });
        await step.dispose();
        expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(LOSS);
        expect([...gradients.keys()].sort()).toEqual([...expected.trainableKeys].sort());
        for (const [key, gradient] of gradients)
          expect(relativeL2(gradient, recorded.get(`grad.${key}`)!), key).toBeLessThan(GRADIENT);
      });

      test("ten AdamW steps give the same losses and weights", async () => {
        const recorded = await reference.tensors();
        const peft = await reference.loadAdapted();
        await peft.materialize();
        const trained = new Map([...peft.trainableParameters()].map(([key, { data }]) => [key, data!]));
        const optimizer = new AdamW(trained, { learningRate: 1e-3, weightDecay: 0.01 });
        const step = new TrainingStep(peft.baseModel, engine);
        for (const { step: number, lines, loss: expectedLoss } of expected.training.steps) {
          const batch = await reference.lines(lines.flat());
          const { loss, gradients } = await step.run(batch, { lossScale: 1 / batch.labelTokens, seed: 0 });
          expect(Math.abs(loss / expectedLoss - 1), `step ${number}`).toBeLessThan(LOSS);
          optimizer.step(
            new Map(
              [...gradients].map(([key, data]) => [key, tensor("float32", trained.get(key)!.shape, data)]),
            ),
          );
        }
        await step.dispose();
        for (const [key, { data }] of trained)
          expect(relativeL2(data, recorded.get(`after.${key}`)!), key).toBeLessThan(WEIGHTS);
        const batch = reference.batch();
        const after = await logitsOf(peft.baseModel, engine, batch);
        expect(
          maxAbsDifference(realRows(after, batch), realRows(recorded.get("logits_after")!, batch)),
        ).toBeLessThan(LOGITS);
      });

      test("evaluation agrees", async () => {
        const model = await reference.loadBase();
        const step = new EvaluationStep(model, engine);
        let [sum, tokens] = [0, 0];
        const { length } = reference.dataset();
        for (let line = 0; line < length; line += 2) {
          const batch = await reference.lines(line + 1 < length ? [line, line + 1] : [line]);
          sum += await step.run(batch);
          tokens += batch.labelTokens;
        }
        await step.dispose();
        expect(tokens).toBe(expected.evaluation.base.labelTokens);
        expect(Math.abs(sum / tokens / expected.evaluation.base.loss - 1)).toBeLessThan(LOSS);
      });
    },
  );
}

import { describe, expect, test } from "vitest";
import { gradients, type Value } from "../../src/graph/index.ts";
import {
  type ImageSize,
  type ImageTextBatch,
  type ImageTextToTextLM,
  imageTextFeeds,
  imageTextLoss,
} from "../../src/models/index.ts";
import type { Parameter } from "../../src/nn/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { AdamW } from "../../src/training/optimizers.ts";
import { maxAbsDifference, relativeL2 } from "../support/close.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { type Florence2Case, imageSizeOf } from "./florence2-case.ts";
import { florence2Forward } from "./florence2-graphs.ts";

/** Tolerances of the design: what "agrees with PyTorch and PEFT in fp32" means. */
const LOGITS = 1e-4; // max abs
const GRADIENT = 1e-4; // relative L2, each tensor
const LOSS = 1e-5; // relative, each step
const WEIGHTS = 1e-4; // relative L2 after ten steps

const engine = sharedEngine({ threads: 1 });

/** Graph outputs' values for a batch. */
async function run(
  model: ImageTextToTextLM,
  batch: ImageTextBatch,
  outputs: Record<string, Value>,
): Promise<Record<string, Tensor>> {
  return evaluate(engine(), outputs, { ...(await model.parameterFeeds()), ...imageTextFeeds(model, batch) });
}

/** Vision tower, projector, encoder and logits. */
async function forward(model: ImageTextToTextLM, batch: ImageTextBatch): Promise<Record<string, Tensor>> {
  const { outputs, feeds } = await florence2Forward(model, batch);
  return evaluate(engine(), outputs, feeds);
}

const floats = (value: Tensor | undefined): Float32Array => value!.data as Float32Array;

/** The rows of real source tokens: what an encoder computes on padding means nothing. */
const realRows = (values: Float32Array, { attentionMask }: ImageTextBatch): Float32Array => {
  const width = values.length / attentionMask.data.length;
  return Float32Array.from(
    [...attentionMask.data].flatMap((real, row) =>
      real ? [...values.subarray(row * width, (row + 1) * width)] : [],
    ),
  );
};

/** Loss and gradients, by saved name, of the trained parameters. */
function trainingOutputs(
  model: ImageTextToTextLM,
  trained: ReadonlyMap<string, Parameter>,
  image: ImageSize,
): Record<string, Value> {
  const loss = imageTextLoss(model, { image });
  const slopes = gradients(
    loss,
    [...trained.values()].map((parameter) => parameter.value),
  );
  return { loss, ...Object.fromEntries([...trained.keys()].map((key, i) => [`d ${key}`, slopes[i]!])) };
}

/** Tests that Graft computes on every case what transformers and PEFT computed. */
export function describeFlorence2Parity(cases: readonly Florence2Case[]): void {
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
        expect(peft.baseModel.origin.warnings).toEqual([]);
      });

      test("features, logits and loss agree, without and with the adapter", async () => {
        const recorded = await reference.tensors();
        const batch = await reference.batch();
        const image = imageSizeOf(batch);
        const bare = await reference.loadBase();
        expect(bare.imageTokens(image)).toBe(expected.imageTokens);
        const base = await forward(bare, batch);
        const { loss } = await run(bare, batch, { loss: imageTextLoss(bare, { image }) });
        expect(maxAbsDifference(floats(base["logits"]), recorded.get("logits_base")!)).toBeLessThan(LOGITS);
        expect(Math.abs(floats(loss)[0]! / expected.lossBase - 1)).toBeLessThan(LOSS);
        const { baseModel } = await reference.loadAdapted();
        const adapted = await forward(baseModel, batch);
        for (const name of ["vision", "image_features", "logits"])
          expect(maxAbsDifference(floats(adapted[name]), recorded.get(name)!), name).toBeLessThan(LOGITS);
        expect(
          maxAbsDifference(
            realRows(floats(adapted["encoder"]), batch),
            realRows(recorded.get("encoder")!, batch),
          ),
        ).toBeLessThan(LOGITS);
      });

      test("loss and every gradient agree", async () => {
        const recorded = await reference.tensors();
        const batch = await reference.batch();
        const peft = await reference.loadAdapted();
        const trained = peft.trainableParameters();
        const graph = trainingOutputs(peft.baseModel, trained, imageSizeOf(batch));
        const outputs = await run(peft.baseModel, batch, graph);
        expect(Math.abs(floats(outputs["loss"])[0]! / expected.loss - 1)).toBeLessThan(LOSS);
        for (const key of expected.trainableKeys)
          expect(relativeL2(floats(outputs[`d ${key}`]), recorded.get(`grad.${key}`)!), key).toBeLessThan(
            GRADIENT,
          );
      });

      test("ten AdamW steps give the same losses and weights", async () => {
        const recorded = await reference.tensors();
        const batch = await reference.batch();
        const image = imageSizeOf(batch);
        const peft = await reference.loadAdapted();
        await peft.materialize();
        const { baseModel: model } = peft;
        const trained = new Map([...peft.trainableParameters()].map(([key, { data }]) => [key, data!]));
        const optimizer = new AdamW(trained, { learningRate: 1e-3, weightDecay: 0.01 });
        const session = await engine().createSession(
          trainingOutputs(model, peft.trainableParameters(), image),
        );
        for (const { step, lines, loss } of expected.training.steps) {
          const { outputs } = await session.run({
            ...(await model.parameterFeeds()),
            ...imageTextFeeds(model, await reference.lines(lines, model.padTokenId)),
          });
          expect(Math.abs(floats(outputs["loss"])[0]! / loss - 1), `step ${step}`).toBeLessThan(LOSS);
          optimizer.step(
            new Map(
              [...trained].map(([key, { shape }]) => [
                key,
                tensor("float32", shape, floats(outputs[`d ${key}`])),
              ]),
            ),
          );
        }
        await session.dispose();
        for (const [key, { data }] of trained)
          expect(relativeL2(data, recorded.get(`after.${key}`)!), key).toBeLessThan(WEIGHTS);
        const after = await forward(model, batch);
        expect(maxAbsDifference(floats(after["logits"]), recorded.get("logits_after")!)).toBeLessThan(LOGITS);
      });
    },
  );
}

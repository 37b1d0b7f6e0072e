import { describe, expect, test } from "vitest";
import { gradients, type Value } from "../../src/graph/index.ts";
import {
  type Seq2SeqBatch,
  type Seq2SeqLM,
  seq2seqFeeds,
  seq2seqInputs,
  seq2seqLoss,
  shiftTokensRight,
} from "../../src/models/index.ts";
import type { Layer, Parameter } from "../../src/nn/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { AdamW } from "../../src/training/optimizers.ts";
import { maxAbsDifference, relativeL2 } from "../support/close.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { int64, type Seq2SeqCase } from "./seq2seq-case.ts";

/** Tolerances of the design: what "agrees with PyTorch and PEFT in fp32" means. */
const LOGITS = 1e-4; // max abs
const GRADIENT = 1e-4; // relative L2, each tensor
const LOSS = 1e-5; // relative, each step
const WEIGHTS = 1e-4; // relative L2 after ten steps

const engine = sharedEngine({ threads: 1 });

/** A graph output's values for a batch. */
async function run(
  model: Seq2SeqLM,
  batch: Seq2SeqBatch,
  outputs: Record<string, Value>,
): Promise<Record<string, Tensor>> {
  return evaluate(engine(), outputs, { ...(await model.parameterFeeds()), ...seq2seqFeeds(model, batch) });
}

function forward(model: Seq2SeqLM): { encoder: Value; logits: Value } {
  const inputs = seq2seqInputs();
  const encoder = model.encode(inputs);
  return { encoder, logits: model.logits(model.decode({ ...inputs, encoderHidden: encoder }).hidden) };
}

const floats = (value: Tensor | undefined): Float32Array => value!.data as Float32Array;

/** The rows of real source tokens: what an encoder computes on padding means nothing. */
const realRows = (values: Float32Array, { attentionMask }: Seq2SeqBatch): Float32Array => {
  const width = values.length / attentionMask.data.length;
  return Float32Array.from(
    [...attentionMask.data].flatMap((real, row) =>
      real ? [...values.subarray(row * width, (row + 1) * width)] : [],
    ),
  );
};

/** Loss and gradients, by saved name, of the trained parameters. */
function trainingOutputs(model: Seq2SeqLM, trained: ReadonlyMap<string, Parameter>): Record<string, Value> {
  const loss = seq2seqLoss(model);
  const slopes = gradients(
    loss,
    [...trained.values()].map((parameter) => parameter.value),
  );
  return { loss, ...Object.fromEntries([...trained.keys()].map((key, i) => [`d ${key}`, slopes[i]!])) };
}

/** Tests that Graft computes on every case what transformers and PEFT computed. */
export function describeSeq2SeqParity(cases: readonly Seq2SeqCase[]): void {
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

      test("labels are shifted alike", async () => {
        const model = await reference.loadBase();
        expect(shiftTokensRight(reference.batch().labels, model)).toEqual(int64(expected.shiftedLabels));
      });

      test("logits and loss agree, without and with the adapter", async () => {
        const recorded = await reference.tensors();
        const batch = reference.batch();
        const bare = await reference.loadBase();
        const base = await run(bare, batch, forward(bare));
        const { loss } = await run(bare, batch, { loss: seq2seqLoss(bare) });
        expect(maxAbsDifference(floats(base["logits"]), recorded.get("logits_base")!)).toBeLessThan(LOGITS);
        expect(Math.abs(floats(loss)[0]! / expected.lossBase - 1)).toBeLessThan(LOSS);
        const { baseModel } = await reference.loadAdapted();
        const adapted = await run(baseModel, batch, forward(baseModel));
        expect(
          maxAbsDifference(
            realRows(floats(adapted["encoder"]), batch),
            realRows(recorded.get("encoder")!, batch),
          ),
        ).toBeLessThan(LOGITS);
        expect(maxAbsDifference(floats(adapted["logits"]), recorded.get("logits")!)).toBeLessThan(LOGITS);
      });

      test("the encoder takes embeddings that were made elsewhere", async () => {
        const { baseModel: model } = await reference.loadAdapted();
        const { inputIds, attentionMask } = seq2seqInputs();
        const embedding = model.getModule("model.encoder.embed_tokens") as Layer;
        const encoder = model.encode({ inputsEmbeds: embedding.forward(inputIds), attentionMask });
        const batch = reference.batch();
        const actual = realRows(floats((await run(model, batch, { encoder }))["encoder"]), batch);
        const expectedRows = realRows((await reference.tensors()).get("encoder")!, batch);
        expect(maxAbsDifference(actual, expectedRows)).toBeLessThan(LOGITS);
      });

      test("loss and every gradient agree", async () => {
        const recorded = await reference.tensors();
        const peft = await reference.loadAdapted();
        const trained = peft.trainableParameters();
        const outputs = await run(
          peft.baseModel,
          reference.batch(),
          trainingOutputs(peft.baseModel, trained),
        );
        expect(Math.abs(floats(outputs["loss"])[0]! / expected.loss - 1)).toBeLessThan(LOSS);
        for (const key of expected.trainableKeys)
          expect(relativeL2(floats(outputs[`d ${key}`]), recorded.get(`grad.${key}`)!), key).toBeLessThan(
            GRADIENT,
          );
      });

      test("ten AdamW steps give the same losses and weights", async () => {
        const recorded = await reference.tensors();
        const peft = await reference.loadAdapted();
        await peft.materialize();
        const { baseModel: model } = peft;
        const trained = new Map([...peft.trainableParameters()].map(([key, { data }]) => [key, data!]));
        const optimizer = new AdamW(trained, { learningRate: 1e-3, weightDecay: 0.01 });
        const session = await engine().createSession(trainingOutputs(model, peft.trainableParameters()));
        for (const { step, lines, loss } of expected.training.steps) {
          const { outputs } = await session.run({
            ...(await model.parameterFeeds()),
            ...seq2seqFeeds(model, reference.lines(lines, model.padTokenId)),
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
        const after = await run(model, reference.batch(), forward(model));
        expect(maxAbsDifference(floats(after["logits"]), recorded.get("logits_after")!)).toBeLessThan(LOGITS);
      });
    },
  );
}

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { getPeftModel, LoraConfig } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readJson } from "../../src/checkpoint/index.ts";
import { gradients, nodesOf, type OpName, type Value } from "../../src/graph/index.ts";
import {
  buildSeq2SeqLM,
  type Seq2SeqLM,
  seq2seqFeeds,
  seq2seqLoss,
  seq2seqNoise,
} from "../../src/models/index.ts";
import { bindWeights } from "../../src/models/load.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { Seq2SeqCase } from "./seq2seq-case.ts";

const engine = sharedEngine({ threads: 1 });
const reference = new Seq2SeqCase(
  fileURLToPath(new URL("../vectors/seq2seq/bart-tied-gelu", import.meta.url)),
);

/** The recorded model with other rates of dropout. */
async function load(rates: Record<string, number>): Promise<Seq2SeqLM> {
  const store = await openStore(join(reference.directory, "model"));
  const config = { ...((await readJson(store, "config.json")) as object), ...rates };
  const { model } = buildSeq2SeqLM(config, "config.json");
  const checkpoint = await readCheckpoint(store);
  bindWeights(model, checkpoint);
  model.origin = { name: "bart", config, generationConfig: undefined, checkpoint, warnings: [] };
  return model;
}

const countOf = (value: Value, name: OpName): number =>
  nodesOf([value]).filter(({ op }) => op === name).length;

async function lossOf(model: Seq2SeqLM, seed: number): Promise<number> {
  const batch = reference.batch();
  const { loss } = await evaluate(
    engine(),
    { loss: seq2seqLoss(model, { dropout: true }) },
    { ...(await model.parameterFeeds()), ...seq2seqFeeds(model, batch), ...seq2seqNoise(batch, seed) },
  );
  return (loss!.data as Float32Array)[0]!;
}

test("every place of the reference drops: after embeddings, in and after attention, in and after feed-forward", async () => {
  const wheres = async (rates: Record<string, number>): Promise<number> => {
    const model = await load(rates);
    return countOf(seq2seqLoss(model, { dropout: true }), "Where") - countOf(seq2seqLoss(model), "Where");
  };
  const [encoderLayers, decoderLayers] = [2, 2];
  expect(await wheres({ dropout: 0.1 })).toBe(2 + 2 * encoderLayers + 3 * decoderLayers);
  expect(await wheres({ attention_dropout: 0.1 })).toBe(encoderLayers + 2 * decoderLayers);
  expect(await wheres({ activation_dropout: 0.1 })).toBe(encoderLayers + decoderLayers);
  expect(await wheres({})).toBe(0);
});

test("adapters' own dropout draws from the noise of the sequence that they read", async () => {
  const model = await load({});
  getPeftModel(
    model,
    new LoraConfig({
      r: 2,
      loraDropout: 0.2,
      targetModules: ["k_proj", "lm_head"],
    }),
  );
  const drops =
    countOf(seq2seqLoss(model, { dropout: true }), "Where") - countOf(seq2seqLoss(model), "Where");
  expect(drops).toBe(2 + 2 * 2 + 1); // the keys of two encoder layers, of two attentions of two decoder layers, the head
});

test("a step's loss depends on its seed alone, and varies around the one without dropout", async () => {
  const model = await load({ dropout: 0.1, attention_dropout: 0.2, activation_dropout: 0.1 });
  const losses = await Promise.all([1, 2, 3, 4, 5, 6].map((seed) => lossOf(model, seed)));
  expect(new Set(losses).size).toBe(6);
  expect(await lossOf(model, 3)).toBe(losses[2]);
  const without = await lossOf(await load({}), 1);
  expect(without).toBeCloseTo(reference.expected.lossBase, 4);
  for (const loss of losses) expect(Math.abs(loss / without - 1)).toBeLessThan(0.3);
});

test("gradients are slopes of the loss with the same masks", async () => {
  const model = await load({ dropout: 0.1, attention_dropout: 0.2, activation_dropout: 0.1 });
  const peft = getPeftModel(
    model,
    new LoraConfig({
      r: 1,
      targetModules: ".*layers\\.0\\.(self_attn|encoder_attn)\\.v_proj",
      initLoraWeights: false,
    }),
  );
  const trained = [...peft.trainableParameters().values()];
  const loss = seq2seqLoss(model, { dropout: true });
  const slopes = gradients(
    loss,
    trained.map((parameter) => parameter.value),
  );
  const batch = reference.batch();
  const session = await engine().createSession({
    loss,
    ...Object.fromEntries(slopes.map((slope, i) => [`d${i}`, slope])),
  });
  const run = async (): Promise<Record<string, Float32Array>> => {
    const feeds = {
      ...(await model.parameterFeeds()),
      ...seq2seqFeeds(model, batch),
      ...seq2seqNoise(batch, 9),
    };
    const { outputs } = await session.run(feeds);
    return Object.fromEntries(
      Object.entries(outputs).map(([name, { data }]) => [name, data as Float32Array]),
    );
  };
  const outputs = await run();
  for (const [i, parameter] of trained.entries()) {
    const { data } = parameter.data!;
    // The slope along the gradient itself is its length.
    const slope = outputs[`d${i}`]!;
    const length = Math.hypot(...slope);
    const start = data.slice();
    const at = async (step: number): Promise<number> => {
      for (let k = 0; k < data.length; k++) data[k] = start[k]! + (step * slope[k]!) / length;
      return (await run())["loss"]![0]!;
    };
    const step = 0.02;
    const measured = ((await at(step)) - (await at(-step))) / (2 * step);
    data.set(start);
    expect(Math.abs(measured / length - 1), parameter.name).toBeLessThan(0.02);
  }
  await session.dispose();
});

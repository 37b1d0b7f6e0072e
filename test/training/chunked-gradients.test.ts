import { describe, expect, test } from "vitest";
import type { LoraConfigOptions } from "../../src/adapters/index.ts";
import { collate } from "../../src/data/index.ts";
import { gradients, nodesOf, op, reachable, type Value } from "../../src/graph/index.ts";
import { rowsAtOnce } from "../../src/keeping/label-chunks.ts";
import { CausalLM, type LanguageModel, labelSizes } from "../../src/models/index.ts";
import { withDropoutNoise } from "../../src/nn/index.ts";
import type { Feeds } from "../../src/runtime/index.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import {
  evaluationProgram,
  gradientName,
  trainedParameters,
  trainingProgram,
} from "../../src/training/program.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { randomExamples } from "./cut-case.ts";
import { bartConfig, llamaConfig, smallModel } from "./small-models.ts";

const engine = sharedEngine({ threads: 1 });
/** 256 rows of logits in a chunk, four chunks in a graph. */
const vocabulary = 2 ** 16;

/** The loss of a graph with all logits at once, and its gradients, as they are derived. */
function inOne(model: LanguageModel): Record<string, Value> {
  const loss = objectiveOf(model).loss({ image: undefined, dropout: true, modelDropout: false });
  const inputs = new Map(
    reachable([loss.total]).flatMap((value) =>
      value.source.kind === "input" ? [[value.source.name, value] as const] : [],
    ),
  );
  const noise = inputs.get(model instanceof CausalLM ? "dropout_noise" : "decoder_dropout_noise");
  const positions = op.concat(
    loss.chunks.map((_, i) => inputs.get(`label_positions.${i}`)!),
    0,
  );
  const ofLabels = noise ? [op.gather(op.reshape(noise, [-1]), positions)] : [];
  const targets = op.concat(
    loss.chunks.map(({ targets }) => targets),
    0,
  );
  const logits = withDropoutNoise(ofLabels, () => model.logits(loss.rows), { ofModel: false });
  const picked = op.gatherElements(op.logSoftmax(logits), op.unsqueeze(targets, 1), 1);
  const whole = op.mul(op.neg(op.reduceSum(picked, { axes: [0, 1], keepdims: false })), loss.scale);
  const trained = trainedParameters(model);
  const slopes = gradients(
    whole,
    trained.map((parameter) => parameter.value),
  );
  return {
    loss: whole,
    ...Object.fromEntries(trained.map((parameter, i) => [gradientName(parameter), slopes[i]!])),
  };
}

/** A batch with about so many labels. */
async function feedsOf(model: LanguageModel, labels: number): Promise<Feeds> {
  const objective = objectiveOf(model);
  const isCausal = objective.labels === "aligned";
  const lengths = [Math.ceil(labels / 2) + 2, Math.floor(labels / 2) + 2];
  const examples = isCausal
    ? randomExamples(lengths, { vocabulary })
    : randomExamples([5, 3], { vocabulary, labels: lengths.map((length) => Math.max(1, length - 2)) });
  const unlabelled = examples.map((one) => ({ ...one, labels: one.labels.map(() => -100) }));
  const batch = collate(labels === 0 ? unlabelled : examples, { padTokenId: 1, labels: objective.labels });
  return {
    ...(await model.parameterFeeds()),
    ...objective.feeds(batch, { lossScale: 1 / Math.max(labels, 1) }),
    ...objective.noise(batch, 3),
  };
}

const llama = { ...llamaConfig, vocab_size: vocabulary, num_hidden_layers: 1 };
const bart = { ...bartConfig, vocab_size: vocabulary, encoder_layers: 1, decoder_layers: 1 };
const untied = { ...llama, tie_word_embeddings: false };

describe.each<[string, object, LoraConfigOptions]>([
  ["tied, adapters below", llama, { targetModules: ["q_proj", "down_proj"], loraDropout: 0.2 }],
  ["an adapter on the head", untied, { targetModules: ["v_proj", "lm_head"], loraDropout: 0.2 }],
  ["an adapter on the head alone", untied, { targetModules: ["lm_head"] }],
  ["the head trained", untied, { targetModules: ["v_proj"], modulesToSave: ["lm_head"] }],
  ["BART, with its bias", bart, { targetModules: ["q_proj", "fc1"], loraDropout: 0.2 }],
])("%s", (_, config, lora) => {
  const model = smallModel(config as Record<string, unknown>, lora);

  test("the loss and its gradients are those of all logits at once, however many labels there are", async () => {
    const { outputs } = trainingProgram(model);
    const whole = inOne(model);
    for (const labels of [0, 2, 400, 1100]) {
      const feeds = await feedsOf(model, labels);
      const expected = await evaluate(engine(), whole, feeds);
      const found = await evaluate(engine(), outputs, feeds);
      for (const [name, { data }] of Object.entries(expected))
        if (labels === 0)
          expect(
            (found[name]!.data as Float32Array).every((x) => x === 0),
            name,
          ).toBe(true);
        else
          expect(
            relativeL2(found[name]!.data as Float32Array, data as Float32Array),
            `${name}, ${labels} labels`,
          ).toBeLessThan(name === "loss" ? 1e-6 : 1e-5);
    }
  });

  test("evaluation gives the same loss", async () => {
    const feeds = await feedsOf(model, 400);
    const noise = Object.fromEntries(
      Object.entries(feeds)
        .map(([name, value]) => [name, value] as const)
        .filter(([name]) => !/noise/.test(name)),
    );
    const loss = evaluationProgram(model);
    const known = new Set(
      reachable(Object.values(loss)).flatMap(({ source }) => (source.kind === "input" ? [source.name] : [])),
    );
    const read = Object.fromEntries(Object.entries(noise).filter(([name]) => known.has(name)));
    const { loss: found } = await evaluate(engine(), loss, read);
    const without = smallModel(config as Record<string, unknown>, { ...lora, loraDropout: 0 });
    const { loss: expected } = await evaluate(
      engine(),
      { loss: inOne(without)["loss"]! },
      {
        ...feeds,
        ...(await without.parameterFeeds()),
      },
    );
    expect(relativeL2(found!.data as Float32Array, expected!.data as Float32Array)).toBeLessThan(1e-6);
  });

  test("the logits of a chunk depend on all that is made of those of the chunk before", () => {
    const { outputs } = trainingProgram(model);
    const values = nodesOf(Object.values(outputs)).flatMap((node) =>
      node.op === "LogSoftmax" ? [node.outputs[0]!] : [],
    );
    expect(values).toHaveLength(4);
    for (const [i, before] of values.slice(0, -1).entries()) {
      const earlier = new Set(reachable([values[i + 1]!]));
      expect(earlier.has(before)).toBe(true);
      // Nothing else of the graph reads them later.
      const readers = nodesOf(Object.values(outputs)).filter((node) =>
        (node.inputs as readonly (Value | undefined)[]).includes(before),
      );
      expect(readers.length).toBeGreaterThan(0);
      for (const { outputs: made } of readers) expect(earlier.has(made[0]!)).toBe(true);
    }
  });
});

test("labels are spread evenly over as few chunks as hold them", () => {
  const sizes = (labels: number): number[] => Object.values(labelSizes(vocabulary, labels));
  expect(sizes(0)).toEqual([0, 0, 0, 0]);
  expect(sizes(256)).toEqual([256, 0, 0, 0]);
  expect(sizes(257)).toEqual([129, 128, 0, 0]);
  expect(sizes(4001)).toEqual([1000, 1001, 1000, 1000]);
  expect(labelSizes(1000, 70)).toEqual({ labels: 70 });
});

test("the estimate of memory counts the logits of the largest chunk", () => {
  for (const vocabulary of [1000, 2 ** 14, 49_152, 151_936])
    for (const labels of [1, 100, 1020, 8000]) {
      const largest = Math.max(...Object.values(labelSizes(vocabulary, labels)));
      const counted = rowsAtOnce(labels, vocabulary);
      expect(counted).toBeGreaterThanOrEqual(largest);
      expect(counted).toBeLessThanOrEqual(Math.max(1.6 * largest, labelSizes(1, 1)["labels"]!));
    }
});

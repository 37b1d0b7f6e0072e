import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig } from "../../src/adapters/index.ts";
import { collate } from "../../src/data/index.ts";
import { flopsOf } from "../../src/graph/cut/flops.ts";
import { nodesOf } from "../../src/graph/index.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import { evaluationProgram, trainedParameters, trainingProgram } from "../../src/training/program.ts";
import { EvaluationStep, TrainingStep } from "../../src/training/step.ts";
import { relativeL2 } from "../support/close.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { randomExamples } from "./cut-case.ts";

const engine = sharedEngine({ threads: 1 });
const everyLinear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

async function adapted(name: string, loraDropout = 0) {
  const folder = join(fileURLToPath(new URL("../vectors/models", import.meta.url)), name);
  const model = await new ReferenceCase(folder).loadBase();
  getPeftModel(
    model,
    new LoraConfig({ r: 2, initLoraWeights: false, targetModules: everyLinear, loraDropout }),
  );
  return model;
}

test("adapters that read the same x have one product in every layer", async () => {
  const model = await adapted("llama-qv");
  const matrices = new Set(trainedParameters(model).map((parameter) => parameter.value));
  const { outputs } = trainingProgram(model);
  const products = nodesOf([outputs["loss"]!]).filter(({ op, inputs }) => {
    const [, matrix] = inputs as readonly {
      source: { kind: string; node?: { op: string; inputs: unknown } };
    }[];
    const joined = matrix?.source.node?.op === "Concat" ? (matrix.source.node.inputs as unknown[]) : [matrix];
    return op === "Gemm" && joined.every((value) => matrices.has(value as never));
  });
  // Of q, k and v, of o, of gate and up, and of down; and the six that go back up. Two layers.
  const layers = 2;
  expect(products).toHaveLength(layers * (4 + everyLinear.length));
});

describe("attention in blocks", () => {
  test.each<[string, { packed?: boolean; loraDropout?: number }]>([
    ["llama-qv", {}],
    ["llama-qv", { loraDropout: 0.3 }],
    ["mistral-sliding-window", {}],
    ["mistral-sliding-window", { packed: true }],
    ["qwen3-head-dim", {}],
  ])(
    "%s %j: the same loss and gradients from fewer scores",
    async (name, { packed = false, loraDropout }) => {
      const model = await adapted(name, loraDropout);
      const objective = objectiveOf(model);
      const parameters = await model.parameterFeeds();
      const session = (attentionBlocks: number) =>
        engine().createSession(trainingProgram(model, { packed, attentionBlocks }).outputs);
      const whole = await session(1);
      for (const blocks of [2, 3, 8]) {
        const blocked = await session(blocks);
        // Some are shorter than there are blocks.
        for (const lengths of [[1, 4], [3, 7, 5], [16, 9], [13]]) {
          const rows = packed ? [lengths.map((_, i) => i)] : undefined;
          const batch = collate(randomExamples(lengths, { vocabulary: model.vocabSize }), {
            padTokenId: 0,
            ...(rows && { rows }),
          });
          const feeds = {
            ...parameters,
            ...objective.feeds(batch, { lossScale: 0.1 }),
            ...objective.noise(batch, 3),
          };
          const [expected, actual] = [await whole.run(feeds), await blocked.run(feeds)];
          for (const [name, { data }] of Object.entries(expected.outputs))
            expect(
              relativeL2(actual.outputs[name]!.data as Float32Array, data as Float32Array),
              `${name} of ${lengths} in ${blocks} blocks`,
            ).toBeLessThan(2e-5);
        }
      }
    },
  );

  test("a step takes them up when rows are long", async () => {
    const model = await adapted("llama-qv");
    const step = new TrainingStep(model, engine());
    const evaluation = new EvaluationStep(model, engine());
    const whole = await engine().createSession(trainingProgram(model).outputs);
    for (const length of [20, 400, 5, 800]) {
      const batch = collate(randomExamples([length], { vocabulary: model.vocabSize }), { padTokenId: 0 });
      const feeds = {
        ...(await model.parameterFeeds()),
        ...objectiveOf(model).feeds(batch, { lossScale: 1 / length }),
      };
      const { outputs } = await whole.run(feeds);
      const { loss, gradients } = await step.run(batch, { lossScale: 1 / length, seed: 1 });
      expect(loss / (outputs["loss"]!.data as Float32Array)[0]!).toBeCloseTo(1, 5);
      expect((await evaluation.run(batch)) / length / loss).toBeCloseTo(1, 5);
      for (const [name, gradient] of gradients)
        expect(relativeL2(gradient, outputs[`gradient ${name}`]!.data as Float32Array), name).toBeLessThan(
          2e-5,
        );
    }
    await Promise.all([step.dispose(), evaluation.dispose()]);
  });

  test("less work for long texts, forward and backward", async () => {
    const model = await adapted("llama-qv");
    const sizes = new Map([
      ["batch", 1],
      ["sequence", 4096],
      ["labels", 1],
    ]);
    const flops = (outputs: Parameters<typeof Object.values>[0]) =>
      nodesOf(Object.values(outputs) as never).reduce((sum, node) => sum + flopsOf(node, sizes), 0);
    // Of eight blocks (8 + 1) / 16 of the scores are left, and with this length little else counts.
    for (const program of [
      evaluationProgram,
      (...args: Parameters<typeof evaluationProgram>) => trainingProgram(...args).outputs,
    ]) {
      const [one, eight] = [1, 8].map((attentionBlocks) => flops(program(model, { attentionBlocks })));
      expect(eight! / one!).toBeLessThan(0.65);
      expect(eight! / one!).toBeGreaterThan(9 / 16);
    }
  });
});

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { getPeftModel, LoraConfig, type LoraConfigOptions } from "../../src/adapters/index.ts";
import { collate, type Example } from "../../src/data/index.ts";
import { flopsOf } from "../../src/graph/cut/flops.ts";
import { gradients, nodesOf, sinkGathers, type Value } from "../../src/graph/index.ts";
import type { LanguageModel } from "../../src/models/index.ts";
import { objectiveOf } from "../../src/training/objective.ts";
import { trainedParameters } from "../../src/training/program.ts";
import { Seq2SeqCase } from "../models/seq2seq-case.ts";
import { relativeL2 } from "../support/close.ts";
import { ReferenceCase } from "../support/reference-case.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { randomExamples } from "./cut-case.ts";

const engine = sharedEngine({ threads: 1 });
const vectors = (name: string): string => join(fileURLToPath(new URL("../vectors", import.meta.url)), name);

const everyLinear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const ofBart = ["q_proj", "v_proj", "out_proj", "fc1", "fc2"];
const sizes = new Map([
  ["batch", 3],
  ["sequence", 12],
  ["source", 12],
  ["target", 12],
  ["labels", 4],
]);

/** Work of a graph. */
const flops = (values: readonly Value[]): number =>
  nodesOf(values).reduce((sum, node) => sum + flopsOf(node, sizes), 0);

test.each<[string, LoraConfigOptions]>([
  ["models/llama-qv", { targetModules: everyLinear }],
  ["models/qwen2-tied", { targetModules: everyLinear, loraDropout: 0.3 }],
  ["models/qwen3-head-dim", { targetModules: ["q_proj", "down_proj"] }],
  ["models/llama-qv", { targetModules: ["lm_head"], loraDropout: 0.3 }],
  ["seq2seq/bart-tied-gelu", { targetModules: ofBart, loraDropout: 0.3 }],
  ["seq2seq/bart-untied-relu-scaled", { targetModules: ofBart }],
])("%s with %j: the same loss and gradients from fewer rows", async (name, lora) => {
  const isCausal = name.startsWith("models");
  const model: LanguageModel = isCausal
    ? await new ReferenceCase(vectors(name)).loadBase()
    : await new Seq2SeqCase(vectors(name)).loadBase();
  getPeftModel(model, new LoraConfig({ r: 2, initLoraWeights: false, ...lora }));
  const objective = objectiveOf(model);
  const loss = objective.loss({ image: undefined, dropout: true, modelDropout: false }).total;
  const { loss: sunk } = sinkGathers({ loss }) as { loss: Value };

  const trained = trainedParameters(model).map((parameter) => parameter.value);
  const program = (of: Value): Record<string, Value> => ({
    loss: of,
    ...Object.fromEntries(gradients(of, trained).map((slope, i) => [`gradient ${i}`, slope])),
  });
  const [before, after] = [program(loss), program(sunk)];
  const [first, last] = [before, after].map((outputs) => flops(Object.values(outputs)));
  // Of two layers on either side the last one's end, without its attention.
  expect(last! / first!).toBeLessThan(isCausal ? 0.85 : 0.95);

  const batch = collate(fewLabels(isCausal), {
    padTokenId: model.padTokenId,
    labels: objective.labels,
  });
  const feeds = {
    ...(await model.parameterFeeds()),
    ...objective.feeds(batch, { lossScale: 0.2 }),
    ...objective.noise(batch, 3),
  };
  const [plain, moved] = [await evaluate(engine(), before, feeds), await evaluate(engine(), after, feeds)];
  for (const output of Object.keys(plain))
    expect(
      relativeL2(moved[output]!.data as Float32Array, plain[output]!.data as Float32Array),
      output,
    ).toBeLessThan(output === "loss" ? 1e-6 : 5e-6);
});

/** Examples of which only the end is learned. */
function fewLabels(isCausal: boolean): Example[] {
  const lengths = [6, 9, 4];
  const examples = randomExamples(lengths, { vocabulary: 80, ...(!isCausal && { labels: [3, 6, 2] }) });
  return examples.map(({ inputIds, labels }) => ({
    inputIds,
    labels: labels.map((label, i) => (i < labels.length - 2 ? -100 : label)),
  }));
}

test("with adapters at the top, frozen values stay whole if asked to, so that they can be kept", async () => {
  const model = await new ReferenceCase(vectors("models/llama-qv")).loadBase();
  getPeftModel(model, new LoraConfig({ r: 2, targetModules: ["down_proj"], layersToTransform: [1] }));
  const loss = objectiveOf(model).loss({ image: undefined, dropout: true, modelDropout: false }).total;
  const behind = trainedParameters(model).map((parameter) => parameter.value);
  const rowsOf = (of: Value): string[] =>
    nodesOf([of])
      .filter(({ op }) => op === "Gemm")
      .map(({ outputs }) => String(outputs[0]!.shape[0]));
  const whole = rowsOf(loss).filter((rows) => rows === "batch*sequence").length;
  const [all, some] = [sinkGathers({ loss }), sinkGathers({ loss }, { behind })];
  // The last layer's o, gate, up and down, with down's adapter; or the adapter alone.
  expect(rowsOf(all["loss"]!).filter((rows) => rows === "batch*sequence")).toHaveLength(whole - 6);
  expect(rowsOf(some["loss"]!).filter((rows) => rows === "batch*sequence")).toHaveLength(whole - 2);
});

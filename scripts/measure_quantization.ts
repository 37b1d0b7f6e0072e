/**
 * What quantised frozen weights cost in quality: trains the bundled Llama on the bundled text with each base dtype, the same
 * seed and settings, and prints losses, gradients' errors of the first batch and each layer's errors as JSON.
 *
 *     node --import tsx scripts/measure_quantization.ts [--epochs 2] [--threads 1] [--dtypes float32,int8,int4]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { getPeftModel, LoraConfig } from "../src/adapters/index.ts";
import { AutoTokenizer, collate, openDataset } from "../src/data/index.ts";
import { AutoModelForCausalLM } from "../src/models/index.ts";
import type { BaseDtype } from "../src/quantization/index.ts";
import { createEngine } from "../src/runtime/node.ts";
import { evaluate, Trainer, TrainingStep } from "../src/training/index.ts";
import { quantizeBase } from "../src/training/quantize-base.ts";

const { values } = parseArgs({
  options: {
    epochs: { type: "string", default: "2" },
    threads: { type: "string", default: "1" },
    dtypes: { type: "string", default: "float32,int8,int4" },
    head: { type: "boolean", default: true },
  },
  allowNegative: true,
});
const root = fileURLToPath(new URL("..", import.meta.url));
const location = join(root, "models/tiny-llama");
const data = join(root, "data/devils-dictionary");

const engine = await createEngine({ threads: Number(values.threads) });
const tokenizer = await AutoTokenizer.fromPretrained(location);
const [trainDataset, evalDataset] = await Promise.all(
  ["train", "test"].map((part) => openDataset(join(data, `${part}.jsonl`), { tokenizer })),
);
const examples = await Promise.all(Array.from({ length: 8 }, (_, i) => trainDataset!.get(i * 7)));
const batch = collate(examples, { padTokenId: 0, side: "right" });

type Gradients = ReadonlyMap<string, Float32Array>;
let reference: Gradients | undefined;

const relative = (actual: Float32Array, expected: Float32Array): number => {
  let [difference, size] = [0, 0];
  for (const [i, value] of expected.entries()) {
    difference += (actual[i]! - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(difference / size);
};
const summary = (numbers: readonly number[]) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
  return { median: at(0.5), p90: at(0.9), max: at(1) };
};

for (const dtype of values.dtypes.split(",") as BaseDtype[]) {
  const model = await AutoModelForCausalLM.fromPretrained(location);
  const peft = getPeftModel(
    model,
    new LoraConfig({
      r: 16,
      loraAlpha: 32,
      targetModules: ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
      initLoraWeights: true,
      taskType: "CAUSAL_LM",
    }),
  );
  await peft.materialize();
  const directory = mkdtempSync(join(tmpdir(), "graft-quality-"));
  const quantized =
    dtype === "float32"
      ? undefined
      : await quantizeBase(model, { dtype, engine, batch, head: values.head, cacheDirectory: directory });
  // B starts at zero, and with it A's gradients: a little of both shows every gradient.
  for (const [name, { data: tensor }] of peft.trainableParameters())
    if (name.includes("lora_B"))
      for (const i of tensor!.data.keys()) tensor!.data[i] = 0.02 * Math.sin(i * 12.9898);
  const step = new TrainingStep(model, engine);
  const { loss, gradients } = await step.run(batch, { lossScale: 1 / batch.labelTokens, seed: 0 });
  await step.dispose();
  for (const [name, { data: tensor }] of peft.trainableParameters())
    if (name.includes("lora_B")) tensor!.data.fill(0);
  if (dtype === "float32") reference = gradients;
  const before = await evaluate(model, evalDataset!, { engine, padTokenId: 0 });
  const trainer = new Trainer({
    model: peft,
    engine,
    trainDataset: trainDataset!,
    outputDir: directory,
    overwrite: true,
    numTrainEpochs: Number(values.epochs),
    learningRate: 5e-3,
    seed: 7,
  });
  const begin = process.cpuUsage();
  await trainer.train();
  const { user, system } = process.cpuUsage(begin);
  const after = await evaluate(model, evalDataset!, { engine, padTokenId: 0 });
  rmSync(directory, { recursive: true });
  console.log(
    JSON.stringify({
      dtype,
      firstLoss: loss,
      evalLossBefore: before.loss,
      evalLoss: after.loss,
      trainCpuSeconds: (user + system) / 1e6,
      ...(quantized && {
        gradientError: summary(
          [...gradients].map(([name, values_]) => relative(values_, reference!.get(name)!)),
        ),
        weightError: summary(quantized.layers.map(({ weightError }) => weightError)),
        forwardError: summary(quantized.layers.map(({ forwardError }) => forwardError)),
        backwardError: summary(quantized.layers.flatMap(({ backwardError }) => backwardError ?? [])),
        outliers: quantized.layers.flatMap(({ path, outliers }) =>
          outliers.length ? [`${path}: ${outliers}`] : [],
        ),
        kept: quantized.layers.filter((layer) => !layer.quantized).map(({ path }) => path),
        layers: quantized.layers.map(({ path, weightError, forwardError, backwardError }) => [
          path.replace(/^model\.|\.base_layer$/g, ""),
          ...[weightError, forwardError, backwardError].map((error) => error && Number(error.toPrecision(3))),
        ]),
      }),
    }),
  );
}
await engine.dispose();

/**
 * One training measurement with Graft, in a process of its own; the same work, options and output as torch_step.py.
 *
 *     node --import tsx benchmarks/graft-step.ts MODEL_DIR --rows FILE.json --lora JSON
 *         [--batch 4] [--steps 5] [--threads 2] [--base-dtype float32] [--no-head]
 *
 * A step is forward, backward and AdamW on one batch, without gradient checkpointing.
 */
const started = performance.now();

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import type { Rows } from "./make-checkpoint.ts";
import { readPicture } from "./rows.ts";

const { getPeftModel, LoraConfig } = await import("../src/adapters/index.ts");
const { collate } = await import("../src/data/index.ts");
const { loadLanguageModel } = await import("../src/models/index.ts");
const { quantizeWeights } = await import("../src/quantization/index.ts");
const { createEngine } = await import("../src/runtime/node.ts");
const { tensor } = await import("../src/tensor/index.ts");
const { AdamW, TrainingStep, version } = await import("../src/training/index.ts");
const importSeconds = (performance.now() - started) / 1000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: "string", default: "" },
    lora: { type: "string", default: "{}" },
    batch: { type: "string", default: "4" },
    steps: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
    "base-dtype": { type: "string", default: "float32" },
    "no-head": { type: "boolean", default: false },
    "learning-rate": { type: "string", default: "1e-4" },
  },
});
const [batchSize, steps, threads] = [values.batch, values.steps, values.threads].map(Number) as [
  number,
  number,
  number,
];
const rows = JSON.parse(readFileSync(values.rows, "utf8")) as Rows;
const examples = rows.input_ids.map((inputIds, i) => ({
  inputIds,
  labels: rows.labels[i]!,
  ...(rows.pixels && { pixelValues: readPicture(rows.pixels, i) }),
}));

const begin = performance.now();
const model = await loadLanguageModel(positionals[0]!);
const peft = getPeftModel(model, LoraConfig.fromJSON({ peft_type: "LORA", ...JSON.parse(values.lora) }));
await peft.materialize();
if (values["base-dtype"] === "int8")
  await quantizeWeights(model, { dtype: values["base-dtype"], head: !values["no-head"] });
const parameters = new Map([...peft.trainableParameters()].map(([name, { data }]) => [name, data!]));
const optimizer = new AdamW(parameters, { learningRate: Number(values["learning-rate"]), weightDecay: 0.01 });
const engine = await createEngine({ threads });
const training = await TrainingStep.create(model, engine);
const loadSeconds = (performance.now() - begin) / 1000;

const stepSeconds: number[] = [];
const losses: number[] = [];
for (let step = 0; step < steps; step++) {
  const lines = Array.from({ length: batchSize }, (_, i) => (step * batchSize + i) % examples.length);
  const stepBegin = performance.now();
  const batch = collate(
    lines.map((line) => examples[line]!),
    { padTokenId: 0, side: "right", labels: rows.pixels ? "decoder" : "aligned" },
  );
  const { loss, gradients } = await training.run(batch, { lossScale: 1 / batch.labelTokens, seed: step });
  optimizer.step(
    new Map(
      [...gradients].map(([name, data]) => [name, tensor("float32", parameters.get(name)!.shape, data)]),
    ),
  );
  losses.push(loss);
  stepSeconds.push((performance.now() - stepBegin) / 1000);
}
const peakRssBytes = process.resourceUsage().maxRSS * 1024;
await engine.dispose();

const { version: onnxruntime } = createRequire(import.meta.url)("onnxruntime-node/package.json") as {
  version: string;
};
console.log(
  JSON.stringify({
    stepSeconds,
    peakRssBytes,
    loadSeconds,
    importSeconds,
    loss: losses.at(-1),
    losses,
    dtype: values["base-dtype"],
    batch: batchSize,
    threads,
    trainableParameters: peft.parameterCounts().trainable,
    versions: { graft: version, node: process.versions.node, onnxruntime },
  }),
);

/**
 * One training measurement with Graft, in a process of its own; the same work, options and output as torch_step.py.
 *
 *     node --import tsx benchmarks/graft-step.ts MODEL_DIR --selection all-linear|qv|last-quarter --tokens FILE.json
 *         [--batch 4] [--sequence 256] [--steps 5] [--threads 2]
 *
 * A step is forward, backward and AdamW on one batch, without gradient checkpointing.
 */
const started = performance.now();

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const { getPeftModel, LoraConfig } = await import("../src/adapters/index.ts");
const { collate } = await import("../src/data/index.ts");
const { AutoModelForCausalLM } = await import("../src/models/index.ts");
const { createEngine } = await import("../src/runtime/node.ts");
const { tensor } = await import("../src/tensor/index.ts");
const { AdamW, TrainingStep, version } = await import("../src/training/index.ts");
const importSeconds = (performance.now() - started) / 1000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    selection: { type: "string", default: "all-linear" },
    tokens: { type: "string", default: "" },
    batch: { type: "string", default: "4" },
    sequence: { type: "string", default: "256" },
    steps: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
    "learning-rate": { type: "string", default: "1e-4" },
  },
});
const { selection } = values;
const [batchSize, sequence, steps, threads] = [
  values.batch,
  values.sequence,
  values.steps,
  values.threads,
].map(Number) as [number, number, number, number];

/** The three selections of the comparison; the last quarter of the layers is rounded up. */
function loraConfig(layers: number) {
  if (selection === "all-linear")
    return new LoraConfig({ r: 16, loraAlpha: 32, targetModules: "all-linear", taskType: "CAUSAL_LM" });
  const qv = { r: 8, loraAlpha: 16, targetModules: ["q_proj", "v_proj"], taskType: "CAUSAL_LM" } as const;
  if (selection === "qv") return new LoraConfig(qv);
  if (selection !== "last-quarter") throw new Error(`unknown selection "${selection}"`);
  const last = Array.from({ length: layers }, (_, i) => i).slice(layers - Math.ceil(layers / 4));
  return new LoraConfig({ ...qv, layersToTransform: last, layersPattern: "layers" });
}

const rows = JSON.parse(readFileSync(values.tokens, "utf8")) as { input_ids: number[][]; labels: number[][] };
const examples = rows.input_ids.map((ids, i) => ({
  inputIds: ids.slice(0, sequence),
  labels: rows.labels[i]!.slice(0, sequence),
}));

const begin = performance.now();
const model = await AutoModelForCausalLM.fromPretrained(positionals[0]!);
const peft = getPeftModel(model, loraConfig(model.origin.config["num_hidden_layers"] as number));
await peft.materialize();
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
    { padTokenId: 0, side: "right" },
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
    selection,
    dtype: "float32",
    batch: batchSize,
    sequence,
    threads,
    trainableParameters: peft.parameterCounts().trainable,
    versions: { graft: version, node: process.versions.node, onnxruntime },
  }),
);

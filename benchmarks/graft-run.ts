/**
 * One training run with Graft, in a process of its own; the same work, options and output as torch_run.py.
 *
 *     node --import tsx benchmarks/graft-run.ts MODEL_DIR --rows FILE.json --adapter DIR
 *         [--batch 4] [--epochs 1] [--threads 2] [--prefix-cache MODE] [--base-dtype DTYPE]
 *
 * It is what `graft train` does, through the Trainer: rows in their order, AdamW at a constant rate, neither clipping nor
 * checkpoints. `--prefix-cache` and `--base-dtype` are the Trainer's options, which have their defaults without them. Codes of quantised
 * weights are kept beside the checkpoint.
 */
const started = performance.now();

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import type { Rows } from "./make-rows.ts";
import { readPicture } from "./rows.ts";
import { versions } from "./versions.ts";

const { PeftModel } = await import("../src/adapters/index.ts");
const { memoryDataset } = await import("../src/data/index.ts");
const { loadLanguageModel } = await import("../src/models/index.ts");
const { createEngine } = await import("../src/runtime/node.ts");
const { Trainer } = await import("../src/training/index.ts");
const importSeconds = (performance.now() - started) / 1000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: "string", default: "" },
    adapter: { type: "string", default: "" },
    batch: { type: "string", default: "4" },
    epochs: { type: "string", default: "1" },
    threads: { type: "string", default: "2" },
    "learning-rate": { type: "string", default: "1e-4" },
    "prefix-cache": { type: "string" },
    "base-dtype": { type: "string", default: "fp32" },
  },
});
const [batchSize, epochs, threads] = [values.batch, values.epochs, values.threads].map(Number) as [
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

process.env["XDG_CACHE_HOME"] = join(dirname(positionals[0]!), "codes");

const begin = performance.now();
const elapsed = (): number => (performance.now() - begin) / 1000;
const model = await loadLanguageModel(positionals[0]!);
const peft = await PeftModel.fromPretrained(model, values.adapter, { isTrainable: true });
const engine = await createEngine({ threads });
const ends: number[] = [];
const losses: number[] = [];
let loadSeconds = 0;
const trainer = new Trainer({
  model: peft,
  trainDataset: memoryDataset(examples),
  padTokenId: 0,
  engine,
  batchSize,
  numTrainEpochs: epochs,
  shuffle: false,
  learningRate: Number(values["learning-rate"]),
  lrSchedulerType: "constant",
  weightDecay: 0.01,
  maxGradNorm: 0,
  baseDtype: values["base-dtype"] as "fp32",
  ...(values["prefix-cache"] !== undefined && { prefixCache: values["prefix-cache"] as "auto" }),
  callbacks: [
    {
      onStepEnd({ loss, seconds }) {
        ends.push(elapsed());
        losses.push(loss);
        // Sessions are loaded before the first step's clock starts.
        if (ends.length === 1) loadSeconds = ends[0]! - seconds;
      },
    },
  ],
});
await trainer.train();
const peakRssBytes = process.resourceUsage().maxRSS * 1024;
await engine.dispose();

console.log(
  JSON.stringify({
    importSeconds,
    loadSeconds,
    stepEnds: ends.map((end) => end - loadSeconds),
    losses,
    epochs,
    batch: batchSize,
    threads,
    peakRssBytes,
    trainableParameters: peft.parameterCounts().trainable,
    versions: versions(),
  }),
);

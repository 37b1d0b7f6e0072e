/**
 * One measurement of generation with Graft, in a process of its own; the same work, options and output as torch_generate.py.
 *
 *     node --import tsx benchmarks/graft-generate.ts MODEL_DIR --rows FILE.json [--lora JSON]
 *         [--batch 1] [--prompt TOKENS] [--new-tokens 128] [--beams 1] [--repeats 4] [--threads 2]
 *         [--base-dtype DTYPE]
 *
 * A prompt is the beginning of a row. No text ends before it has all its new tokens. The first repeat warms up. Codes of
 * quantised weights are kept beside the checkpoint.
 */
const started = performance.now();

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import type { Rows } from "./make-rows.ts";
import { readPicture } from "./rows.ts";
import { versions } from "./versions.ts";

const { getPeftModel, LoraConfig } = await import("../src/adapters/index.ts");
const { TextGenerator } = await import("../src/generation/index.ts");
const { loadLanguageModel } = await import("../src/models/index.ts");
const { quantizeWeights } = await import("../src/quantization/index.ts");
const { createEngine } = await import("../src/runtime/node.ts");
const importSeconds = (performance.now() - started) / 1000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: "string", default: "" },
    lora: { type: "string" },
    batch: { type: "string", default: "1" },
    prompt: { type: "string" },
    "new-tokens": { type: "string", default: "128" },
    beams: { type: "string", default: "1" },
    repeats: { type: "string", default: "4" },
    threads: { type: "string", default: "2" },
    "base-dtype": { type: "string", default: "fp32" },
  },
});
const [batch, newTokens, beams, repeats, threads] = [
  values.batch,
  values["new-tokens"],
  values.beams,
  values.repeats,
  values.threads,
].map(Number) as [number, number, number, number, number];
const rows = JSON.parse(readFileSync(values.rows, "utf8")) as Rows;
const end = values.prompt === undefined ? undefined : Number(values.prompt);
const prompts = rows.input_ids.slice(0, batch).map((ids, i) => ({
  prompt: ids.slice(0, end),
  ...(rows.pixels && { pixelValues: readPicture(rows.pixels, i) }),
}));
if (prompts.length < batch)
  throw new Error(`There are ${prompts.length} rows, too few for a batch of ${batch}.`);

const begin = performance.now();
const model = await loadLanguageModel(positionals[0]!);
if (values.lora !== undefined) {
  const config = LoraConfig.fromJSON({ peft_type: "LORA", ...JSON.parse(values.lora) });
  await getPeftModel(model, config).materialize();
}
const dtype = values["base-dtype"];
if (dtype === "int8" || dtype === "int4")
  await quantizeWeights(model, { dtype, cacheDirectory: join(dirname(positionals[0]!), "codes") });
const engine = await createEngine({ threads });
const generator = await TextGenerator.create(model, { engine });
const loadSeconds = (performance.now() - begin) / 1000;

async function timed(maxNewTokens: number): Promise<{ seconds: number; texts: number[][] }> {
  const from = performance.now();
  const texts = await generator.generateBatch(prompts, {
    maxNewTokens,
    eosTokenIds: [],
    temperature: 0,
    numBeams: beams,
  });
  return { seconds: (performance.now() - from) / 1000, texts };
}

const promptSeconds: number[] = [];
const tokensPerSecond: number[] = [];
let texts: number[][] = [];
for (let repeat = 0; repeat < repeats; repeat++) {
  const prompt = await timed(1);
  const whole = await timed(newTokens);
  promptSeconds.push(prompt.seconds);
  tokensPerSecond.push((batch * (newTokens - 1)) / (whole.seconds - prompt.seconds));
  texts = whole.texts;
}
const peakRssBytes = process.resourceUsage().maxRSS * 1024;
await engine.dispose();

console.log(
  JSON.stringify({
    promptSeconds,
    tokensPerSecond,
    peakRssBytes,
    loadSeconds,
    importSeconds,
    promptTokens: prompts[0]!.prompt.length,
    newTokens,
    beams,
    texts,
    dtype: "float32",
    batch,
    threads,
    versions: versions(),
  }),
);

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { TextGenerator } from "../../src/generation/index.ts";
import {
  AutoModelForImageTextToText,
  type ImageTextBatch,
  type ImageTextToTextLM,
  imageTextLoss,
} from "../../src/models/index.ts";
import { Florence2Processor } from "../../src/processing/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { evaluate, sharedEngine } from "../support/run-graph.ts";
import { imageSizeOf } from "./florence2-case.ts";
import { florence2Forward } from "./florence2-graphs.ts";
import { int64 } from "./seq2seq-case.ts";

type Recorded = {
  stride: number;
  examples: {
    row: number;
    inputIds: number[];
    labels: number[];
    pixelShape: number[];
    pixelSha256: string;
    loss: number;
    logits: number[][];
  }[];
  captions: { row: number; prompt: string; ids: number[]; text: string }[];
};

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const directory = path("models/tiny-florence2");
const rows = readFileSync(path("data/emoji-captions/base-test.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as { image: string; prompt: string; completion: string });
// scripts/record_tiny_florence2.py
const recorded = JSON.parse(
  readFileSync(path("test/vectors/tiny-florence2/expected.json"), "utf8"),
) as Recorded;

const engine = sharedEngine({ threads: 1 });
let model: ImageTextToTextLM;
let processor: Florence2Processor;

beforeAll(async () => {
  [model, processor] = await Promise.all([
    AutoModelForImageTextToText.fromPretrained(directory),
    Florence2Processor.fromPretrained(directory),
  ]);
});

/** A row of the data as Graft's own processor prepares it. */
async function batchOf(row: number): Promise<ImageTextBatch> {
  const { image, prompt, completion } = rows[row]!;
  const { inputIds, attentionMask, pixelValues } = await processor.process({ text: prompt, images: image });
  const labels = int64([processor.tokenizer.encode(completion)]);
  return { inputIds, attentionMask, labels, pixelValues: pixelValues! };
}

test("the checkpoint loads without warnings, and its processor fits it", () => {
  expect(model.origin.warnings).toEqual([]);
  expect(model.imageTokenId).toBe(processor.imageTokenId);
  const size = processor.imageProcessor.outputSize({ width: 24, height: 24 });
  expect(model.imageTokens(size)).toBe(processor.numImageTokens);
});

describe.each(recorded.examples.map((example) => [example.row, example] as const))(
  "row %i",
  (row, example) => {
    test("pixel values are those of transformers, bit by bit, and tokens too", async () => {
      const batch = await batchOf(row);
      expect(batch.pixelValues.shape).toEqual(example.pixelShape);
      const { buffer, byteOffset, byteLength } = batch.pixelValues.data;
      const hash = createHash("sha256")
        .update(new Uint8Array(buffer, byteOffset, byteLength))
        .digest("hex");
      expect(hash).toBe(example.pixelSha256);
      expect([...batch.inputIds.data].map(Number)).toEqual(example.inputIds);
      expect([...batch.labels.data].map(Number)).toEqual(example.labels);
    });

    test("logits and loss agree", async () => {
      const batch = await batchOf(row);
      const { outputs, feeds } = await florence2Forward(model, batch);
      const loss = imageTextLoss(model, { image: imageSizeOf(batch) });
      const computed = await evaluate(engine(), { loss }, feeds);
      expect(Math.abs((computed["loss"]!.data[0] as number) - example.loss)).toBeLessThan(1e-4);
      const values = await evaluate(engine(), { logits: outputs["logits"]! }, feeds);
      const logits = values["logits"]!.data as Float32Array;
      const width = logits.length / example.labels.length;
      const wanted = example.logits.flat();
      const kept = example.labels.flatMap((_, place) =>
        Array.from(
          { length: example.logits[0]!.length },
          (_, i) => logits[place * width + i * recorded.stride]!,
        ),
      );
      expect(kept).toHaveLength(wanted.length);
      expect(Math.max(...kept.map((value, i) => Math.abs(value - wanted[i]!)))).toBeLessThan(1e-4);
    });
  },
);

test("a picture of another emoji changes the loss", async () => {
  const batch = await batchOf(recorded.examples[0]!.row);
  const { pixelValues } = batch;
  const blank = tensor("float32", pixelValues.shape, new Float32Array(pixelValues.data.length));
  const loss = imageTextLoss(model, { image: imageSizeOf(batch) });
  const losses = await Promise.all(
    [pixelValues, blank].map(async (pixels) => {
      const { feeds } = await florence2Forward(model, { ...batch, pixelValues: pixels });
      return (await evaluate(engine(), { loss }, feeds))["loss"]!.data[0] as number;
    }),
  );
  expect(losses[1]! - losses[0]!).toBeGreaterThan(0.1);
});

test("greedy captions are those of transformers", async () => {
  const generator = await TextGenerator.create(model, { engine: engine(), processor });
  try {
    for (const { row, prompt, text } of recorded.captions) {
      const answer = await generator.generate({ prompt, image: rows[row]!.image });
      expect(answer.text, `row ${row}`).toBe(text);
    }
  } finally {
    await generator.dispose();
  }
}, 60_000);

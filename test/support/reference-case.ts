import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PeftModel } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import { type Batch, collate, type Dataset, memoryDataset } from "../../src/data/index.ts";
import { AutoModelForCausalLM, type CausalLM } from "../../src/models/index.ts";
import { tensor } from "../../src/tensor/index.ts";

/** What scripts/record_models.py writes into expected.json; see there. */
export type Expected = {
  name: string;
  description: string;
  padTokenId: number;
  batch: { input_ids: number[][]; attention_mask: number[][]; labels: number[][] };
  batchLabelTokens: number;
  loss: number;
  lossBase: number;
  targets: { name: string; r: number; alpha: number; scaling: number }[];
  adapterKeys: string[];
  trainableKeys: string[];
  rope: { inverseFrequencies: number[]; attentionScaling: number };
  trainableParameters: number;
  totalParameters: number;
  training: { options: Record<string, unknown>; steps: RecordedStep[] };
  trainingAccumulated?: { options: Record<string, unknown>; steps: RecordedStep[] };
  evaluation: Record<"base" | "adapter" | "after", { loss: number; perplexity: number; labelTokens: number }>;
  generation: {
    prompt: number[];
    maxNewTokens: number;
    eosTokenIds: number[];
    newTokens: number[];
    newTokensBase: number[];
    newTokensWithoutEos: number[];
  };
  generationBatch?: {
    input_ids: number[][];
    attention_mask: number[][];
    maxNewTokens: number;
    eosTokenIds: number[];
    newTokens: number[][];
  };
};
export type RecordedStep = {
  step: number;
  lines: number[][];
  loss: number;
  gradNorm: number;
  learningRate: number;
  tokens: number;
  labelTokens: number;
};

/** A tiny checkpoint with an adapter, and what transformers and PEFT compute on it. */
export class ReferenceCase {
  readonly directory: string;
  readonly expected: Expected;

  constructor(directory: string) {
    this.directory = directory;
    this.expected = JSON.parse(readFileSync(join(directory, "expected.json"), "utf8")) as Expected;
  }

  get modelPath(): string {
    return join(this.directory, "model");
  }
  get adapterPath(): string {
    return join(this.directory, "adapter");
  }
  get dataPath(): string {
    return join(this.directory, "tokens.jsonl");
  }

  loadBase(): Promise<CausalLM> {
    return AutoModelForCausalLM.fromPretrained(this.modelPath);
  }

  async loadAdapted(): Promise<PeftModel<CausalLM>> {
    return PeftModel.fromPretrained(await this.loadBase(), this.adapterPath, { isTrainable: true });
  }

  /** Tensors of expected.safetensors as float32. */
  async tensors(): Promise<Map<string, Float32Array>> {
    const { tensors } = await readCheckpoint(await openStore(join(this.directory, "expected.safetensors")));
    const values = [...tensors].map(
      async ([name, entry]) => [name, (await readTensorAsFloat32(entry)).data] as const,
    );
    return new Map(await Promise.all(values));
  }

  batch(): Batch {
    return batchOf(this.expected.batch);
  }

  /** The examples of tokens.jsonl, in order. */
  dataset(): Dataset {
    const lines = readFileSync(this.dataPath, "utf8").trim().split("\n");
    const rows = lines.map((line) => JSON.parse(line) as { input_ids: number[]; labels: number[] });
    return memoryDataset(rows.map(({ input_ids, labels }) => ({ inputIds: input_ids, labels })));
  }

  /** A padded batch of lines (from 0). */
  async lines(numbers: readonly number[]): Promise<Batch> {
    const dataset = this.dataset();
    const examples = await Promise.all(numbers.map((line) => dataset.get(line)));
    return collate(examples, { padTokenId: this.expected.padTokenId, side: "right" });
  }
}

export function batchOf({ input_ids, attention_mask, labels }: Expected["batch"]): Batch {
  const shape = [input_ids.length, input_ids[0]!.length];
  const int64 = (rows: number[][]) => tensor("int64", shape, BigInt64Array.from(rows.flat(), BigInt));
  return {
    inputIds: int64(input_ids),
    attentionMask: int64(attention_mask),
    labels: int64(labels),
    places: attention_mask.map((row, index) => {
      const length = row.reduce((a, b) => a + b, 0);
      return { index, row: index, start: row.indexOf(1), length, labels: length };
    }),
    tokens: attention_mask.flat().reduce((a, b) => a + b, 0),
    labelTokens: labels.flatMap((row) => row.slice(1)).filter((label) => label !== -100).length,
  };
}

/** All cases below a directory. */
export function referenceCases(directory: string): ReferenceCase[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => new ReferenceCase(join(directory, entry.name)))
    .sort((a, b) => (a.expected.name < b.expected.name ? -1 : 1));
}

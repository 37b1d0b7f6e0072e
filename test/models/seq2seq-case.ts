import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PeftModel } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import { AutoModelForSeq2SeqLM, type Seq2SeqBatch, type Seq2SeqLM } from "../../src/models/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";

type Rows = number[][];

/** What scripts/record_seq2seq.py writes into expected.json; see there. */
export type ExpectedSeq2Seq = {
  name: string;
  sourceSide: "left" | "right";
  batch: {
    input_ids: Rows;
    attention_mask: Rows;
    labels: Rows;
    decoder_input_ids?: Rows;
    decoder_attention_mask?: Rows;
  };
  shiftedLabels: Rows;
  loss: number;
  lossBase: number;
  targets: { name: string; r: number; alpha: number; scaling: number }[];
  adapterKeys: string[];
  trainableKeys: string[];
  trainableParameters: number;
  totalParameters: number;
  training: { steps: { step: number; lines: number[]; loss: number }[] };
};

export const int64 = (rows: Rows): Tensor<"int64"> =>
  tensor("int64", [rows.length, rows[0]!.length], BigInt64Array.from(rows.flat(), BigInt));

/** A tiny encoder–decoder with an adapter, and what transformers and PEFT compute on it. */
export class Seq2SeqCase {
  readonly directory: string;
  readonly expected: ExpectedSeq2Seq;

  constructor(directory: string) {
    this.directory = directory;
    this.expected = JSON.parse(readFileSync(join(directory, "expected.json"), "utf8")) as ExpectedSeq2Seq;
  }

  loadBase(): Promise<Seq2SeqLM> {
    return AutoModelForSeq2SeqLM.fromPretrained(join(this.directory, "model"));
  }

  async loadAdapted(): Promise<PeftModel<Seq2SeqLM>> {
    return PeftModel.fromPretrained(await this.loadBase(), join(this.directory, "adapter"), {
      isTrainable: true,
    });
  }

  /** Tensors of expected.safetensors as float32. */
  async tensors(): Promise<Map<string, Float32Array>> {
    const { tensors } = await readCheckpoint(await openStore(join(this.directory, "expected.safetensors")));
    const values = [...tensors].map(
      async ([name, entry]) => [name, (await readTensorAsFloat32(entry)).data] as const,
    );
    return new Map(await Promise.all(values));
  }

  batch(): Seq2SeqBatch {
    const { input_ids, attention_mask, labels, decoder_input_ids, decoder_attention_mask } =
      this.expected.batch;
    return {
      inputIds: int64(input_ids),
      attentionMask: int64(attention_mask),
      labels: int64(labels),
      ...(decoder_input_ids && { decoderInputIds: int64(decoder_input_ids) }),
      ...(decoder_attention_mask && { decoderAttentionMask: int64(decoder_attention_mask) }),
    };
  }

  /** A padded batch of lines of tokens.jsonl, from 0. */
  lines(numbers: readonly number[], padTokenId: number): Seq2SeqBatch {
    const lines = readFileSync(join(this.directory, "tokens.jsonl"), "utf8").trim().split("\n");
    const examples = numbers.map(
      (line) => JSON.parse(lines[line]!) as { input_ids: number[]; labels: number[] },
    );
    const sources = examples.map(({ input_ids }) => input_ids);
    const side = this.expected.sourceSide;
    return {
      inputIds: int64(pad(sources, padTokenId, side)),
      attentionMask: int64(
        pad(
          sources.map((source) => source.map(() => 1)),
          0,
          side,
        ),
      ),
      labels: int64(
        pad(
          examples.map(({ labels }) => labels),
          -100,
          "right",
        ),
      ),
    };
  }
}

export function pad(rows: Rows, filler: number, side: "left" | "right"): Rows {
  const width = Math.max(...rows.map((row) => row.length));
  return rows.map((row) => {
    const filling = Array<number>(width - row.length).fill(filler);
    return side === "right" ? [...row, ...filling] : [...filling, ...row];
  });
}

/** The cases of a folder as scripts/record_seq2seq.py makes it: PyTorch, transformers and PEFT on tiny random models. */
export function seq2seqCases(
  directory = fileURLToPath(new URL("../vectors/seq2seq", import.meta.url)),
): Seq2SeqCase[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => new Seq2SeqCase(join(directory, entry.name)));
}

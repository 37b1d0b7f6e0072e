import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PeftModel } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import {
  AutoModelForImageTextToText,
  type ImageSize,
  type ImageTextBatch,
  type ImageTextToTextLM,
} from "../../src/models/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { type ExpectedSeq2Seq, int64, pad } from "./seq2seq-case.ts";

/** What scripts/record_florence2.py writes into expected.json; see there. */
export type ExpectedFlorence2 = Omit<ExpectedSeq2Seq, "shiftedLabels"> & { imageTokens: number };

/** A tiny Florence-2 with an adapter, and what transformers and PEFT compute on it. */
export class Florence2Case {
  readonly directory: string;
  readonly expected: ExpectedFlorence2;

  constructor(directory: string) {
    this.directory = directory;
    this.expected = JSON.parse(readFileSync(join(directory, "expected.json"), "utf8")) as ExpectedFlorence2;
  }

  /** `layout`: the folder of the checkpoint, "older" in the names of the remote code. */
  loadBase(layout: "model" | "older" = "model"): Promise<ImageTextToTextLM> {
    return AutoModelForImageTextToText.fromPretrained(join(this.directory, layout));
  }

  async loadAdapted(layout?: "model" | "older"): Promise<PeftModel<ImageTextToTextLM>> {
    const adapter = join(this.directory, "adapter");
    return PeftModel.fromPretrained(await this.loadBase(layout), adapter, { isTrainable: true });
  }

  /** Tensors of expected.safetensors. */
  tensors(): Promise<Map<string, Float32Array>> {
    return this.read("expected.safetensors").then(
      (tensors) => new Map([...tensors].map(([name, { data }]) => [name, data])),
    );
  }

  async batch(): Promise<ImageTextBatch> {
    const { input_ids, attention_mask, labels } = this.expected.batch;
    return {
      inputIds: int64(input_ids),
      attentionMask: int64(attention_mask),
      labels: int64(labels),
      pixelValues: (await this.read("pixels.safetensors")).get("batch")!,
    };
  }

  /** A padded batch of lines of tokens.jsonl, from 0, each with its picture. */
  async lines(numbers: readonly number[], padTokenId: number): Promise<ImageTextBatch> {
    const lines = readFileSync(join(this.directory, "tokens.jsonl"), "utf8").trim().split("\n");
    const examples = numbers.map(
      (line) => JSON.parse(lines[line]!) as { input_ids: number[]; labels: number[] },
    );
    const sources = examples.map(({ input_ids }) => input_ids);
    const side = this.expected.sourceSide;
    const real = sources.map((source) => source.map(() => 1));
    const { shape, data } = (await this.read("pixels.safetensors")).get("lines")!;
    const size = data.length / shape[0]!;
    const pixels = numbers.flatMap((line) => [...data.subarray(line * size, (line + 1) * size)]);
    return {
      inputIds: int64(pad(sources, padTokenId, side)),
      attentionMask: int64(pad(real, 0, side)),
      labels: int64(
        pad(
          examples.map(({ labels }) => labels),
          -100,
          "right",
        ),
      ),
      pixelValues: tensor("float32", [numbers.length, ...shape.slice(1)], Float32Array.from(pixels)),
    };
  }

  private async read(file: string): Promise<Map<string, Tensor<"float32">>> {
    const { tensors } = await readCheckpoint(await openStore(join(this.directory, file)));
    const values = [...tensors].map(
      async ([name, entry]) => [name, await readTensorAsFloat32(entry)] as const,
    );
    return new Map(await Promise.all(values));
  }
}

export const imageSizeOf = ({ pixelValues: { shape } }: ImageTextBatch): ImageSize => ({
  height: shape[2]!,
  width: shape[3]!,
});

/** The cases of a folder as scripts/record_florence2.py makes it: PyTorch, transformers and PEFT on tiny random models. */
export function florence2Cases(
  directory = fileURLToPath(new URL("../vectors/florence2", import.meta.url)),
): Florence2Case[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => new Florence2Case(join(directory, entry.name)));
}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { PeftModel } from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensorAsFloat32 } from "../../src/checkpoint/index.ts";
import {
  type CachedDecoder,
  type GeneratedText,
  generateTexts,
  loadDecoder,
  resolveGenerationConfig,
  type Source,
  settingsFile,
} from "../../src/generation/index.ts";
import {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  AutoModelForSeq2SeqLM,
  type LanguageModel,
} from "../../src/models/index.ts";
import type { Engine } from "../../src/runtime/index.ts";
import { numel, type Tensor, tensor } from "../../src/tensor/index.ts";

/** What scripts/record_generation_seq2seq.py writes; see there. */
export type RecordedCase = {
  kind: "seq2seq" | "florence2" | "models";
  checkpoint: string;
  adapter: boolean;
  settings: Record<string, unknown>;
  /** Rows of pixels.safetensors. */
  lines: number[];
  prompts: number[][];
  sequences: number[][];
  scores?: number[];
  gap: number;
};

const loaders = {
  seq2seq: AutoModelForSeq2SeqLM,
  florence2: AutoModelForImageTextToText,
  models: AutoModelForCausalLM,
};

const vectors = fileURLToPath(new URL("../vectors", import.meta.url));

export function recordedCases(directory = join(vectors, "generation-seq2seq")): RecordedCase[] {
  const zipped = readFileSync(join(directory, "cases.json.gz"));
  return (JSON.parse(gunzipSync(zipped).toString()) as { cases: RecordedCase[] }).cases;
}

/** Where a case's checkpoint lies: a folder of test/vectors, or with fresh checkpoints `directory` itself. */
export const checkpointFolder = ({ kind, checkpoint }: RecordedCase, directory?: string): string =>
  join(directory ?? join(vectors, kind), checkpoint);

export async function loadModel(recorded: RecordedCase, directory?: string): Promise<LanguageModel> {
  const folder = checkpointFolder(recorded, directory);
  const model = await loaders[recorded.kind].fromPretrained(join(folder, "model"));
  if (recorded.adapter) await PeftModel.fromPretrained(model, join(folder, "adapter"));
  return model;
}

/** The pictures of tokens.jsonl's lines, [channels, height, width] each; none for a model of text alone. */
export async function linePictures(folder: string): Promise<Tensor<"float32">[]> {
  const { tensors } = await readCheckpoint(await openStore(join(folder, "pixels.safetensors")));
  const { shape, data } = await readTensorAsFloat32(tensors.get("lines")!);
  const [count, ...rest] = shape as [number, ...number[]];
  const size = numel(rest);
  return Array.from({ length: count }, (_, i) =>
    tensor("float32", rest, data.slice(i * size, (i + 1) * size)),
  );
}

export async function sourcesOf(recorded: RecordedCase, directory?: string): Promise<Source[]> {
  const { kind, prompts, lines } = recorded;
  if (kind !== "florence2") return prompts.map((tokens) => ({ tokens }));
  const pictures = await linePictures(checkpointFolder(recorded, directory));
  return prompts.map((tokens, i) => ({ tokens, pixelValues: pictures[lines[i]!] }));
}

/** Decoders of checkpoints with and without their adapters, loaded once. */
export class Decoders {
  private readonly engine: () => Engine;
  private readonly directory: string | undefined;
  private readonly loaded = new Map<string, Promise<CachedDecoder>>();

  constructor(engine: () => Engine, directory?: string) {
    this.engine = engine;
    this.directory = directory;
  }

  get(recorded: RecordedCase): Promise<CachedDecoder> {
    const key = `${recorded.kind} ${recorded.checkpoint} ${recorded.adapter}`;
    const decoder =
      this.loaded.get(key) ??
      loadModel(recorded, this.directory).then((model) => loadDecoder(model, this.engine()));
    this.loaded.set(key, decoder);
    return decoder;
  }

  /** A case's texts, its settings taken as generation_config.json's: of each prompt as many as it asks for. */
  async generate(recorded: RecordedCase): Promise<GeneratedText[][]> {
    const decoder = await this.get(recorded);
    const { file, name } = settingsFile(decoder.model.origin);
    const { config } = resolveGenerationConfig({}, { file: { ...file, ...recorded.settings }, name });
    return generateTexts(decoder, await sourcesOf(recorded, this.directory), { config });
  }

  async dispose(): Promise<void> {
    for (const decoder of this.loaded.values()) await (await decoder).dispose();
  }
}

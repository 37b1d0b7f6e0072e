import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ByteSource, safetensorsChunks, type TensorEntry } from "../src/checkpoint/index.ts";
import { writeDirectoryAtomic } from "../src/checkpoint/node.ts";
import type { ImageTextToTextLM } from "../src/models/index.ts";
import { byteSize, float32ArrayToBfloat16, numel } from "../src/tensor/index.ts";
import { hashText, seededGenerator, uniform, uniformInteger } from "../src/tensor/random.ts";
import { emptyModel, type RowShape, type ShapeName, shapes, tensorShapes } from "./shapes.ts";

export type Storage = "float32" | "bfloat16";
export type CheckpointOptions = { shape: ShapeName; storage: Storage; seed: number };

/** Values that are made at a time. */
const BLOCK = 2 ** 16;

/**
 * A random checkpoint below `cache`, made once: weights N(0, 0.02²), norms 1, biases 0. It is a function of the options alone.
 * Tensors are made while they are written, so that only a few megabytes of them are in memory.
 */
export async function makeCheckpoint(cache: string, options: CheckpointOptions): Promise<string> {
  const { shape, storage, seed } = options;
  const directory = join(cache, `${shape}-${storage}-${seed}`);
  if (existsSync(join(directory, "config.json"))) return directory;
  const { config } = shapes[shape];
  const tensors = new Map(
    [...tensorShapes(config)].map(([name, size]) => [name, randomEntry(name, size, storage, seed)]),
  );
  await writeDirectoryAtomic(
    directory,
    new Map<string, AsyncIterable<Uint8Array> | string>([
      ["model.safetensors", safetensorsChunks(tensors, { format: "pt" })],
      ["config.json", `${JSON.stringify({ ...config, torch_dtype: storage }, null, 2)}\n`],
    ]),
  );
  return directory;
}

/** A tensor whose bytes are computed when they are read. */
function randomEntry(name: string, shape: readonly number[], dtype: Storage, seed: number): TensorEntry {
  const width = byteSize(dtype);
  const byteLength = numel(shape) * width;
  const constant = name.endsWith(".bias") ? 0 : shape.length === 1 ? 1 : undefined;
  const block = (index: number): Uint8Array => {
    const values = new Float32Array(BLOCK);
    if (constant !== undefined) values.fill(constant);
    else fillNormal(values, 0.02, seededGenerator(seed, hashText(name), index));
    const { buffer } = dtype === "bfloat16" ? float32ArrayToBfloat16(values) : values;
    return new Uint8Array(buffer);
  };
  const source: ByteSource = {
    name,
    size: byteLength,
    async read(start, end) {
      const bytes = new Uint8Array(end - start);
      const length = BLOCK * width;
      for (let index = Math.floor(start / length); index * length < end; index++) {
        const from = Math.max(start, index * length);
        const to = Math.min(end, (index + 1) * length);
        bytes.set(block(index).subarray(from - index * length, to - index * length), from - start);
      }
      return bytes;
    },
  };
  return { name, dtype, shape: [...shape], source, byteOffset: 0, byteLength };
}

/** Independent N(0, deviation²), by Box and Muller's method. The length is even. */
function fillNormal(
  values: Float32Array,
  deviation: number,
  random: ReturnType<typeof seededGenerator>,
): void {
  for (let i = 0; i < values.length; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - uniform(random)));
    const angle = 2 * Math.PI * uniform(random);
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
}

/** Rows as both step programs read them; pictures are float32 in a file of their own, one after the other. */
export type Rows = {
  readonly input_ids: number[][];
  readonly labels: number[][];
  readonly pixels?: {
    readonly file: string;
    readonly shape: readonly [channels: number, height: number, width: number];
  };
};

export type RowOptions = {
  readonly shape: ShapeName;
  readonly row: RowShape;
  readonly count: number;
  /** Share of each row of text, at its end, that carries labels. */
  readonly labelFraction: number;
  readonly seed: number;
};

/** Random rows below `cache`; returns their file. */
export function makeRows(cache: string, options: RowOptions): string {
  const { shape, row, count, labelFraction } = options;
  const lengths = row.kind === "text" ? [row.sequence, labelFraction] : [row.size, row.prompt, row.target];
  const file = join(cache, `rows-${shape}-${[count, ...lengths].join("-")}.json`);
  const rows =
    row.kind === "text" ? textRows(options, row.sequence) : pictureRows(options, row, `${file}.pixels`);
  writeFileSync(file, JSON.stringify(rows));
  return file;
}

type Random = ReturnType<typeof seededGenerator>;

/** Tokens from 4 on: those before have meanings. */
const makeTokens = (random: Random, count: number, vocabSize: number): number[] =>
  Array.from({ length: count }, () => uniformInteger(random, 4, vocabSize - 1));

function textRows({ shape, count, labelFraction, seed }: RowOptions, sequence: number): Rows {
  const random = seededGenerator(seed, hashText("tokens"));
  const vocabSize = shapes[shape].config["vocab_size"] as number;
  const unlabelled = sequence - Math.max(1, Math.round(sequence * labelFraction));
  const input_ids = Array.from({ length: count }, () => makeTokens(random, sequence, vocabSize));
  return {
    input_ids,
    labels: input_ids.map((ids) => ids.map((token, column) => (column < unlabelled ? -100 : token))),
  };
}

function pictureRows(
  { shape, count, seed }: RowOptions,
  { size, prompt, target }: RowShape & { kind: "picture" },
  file: string,
): Rows {
  const model = emptyModel(shapes[shape].config) as ImageTextToTextLM;
  const random = seededGenerator(seed, hashText("tokens"));
  const places = Array<number>(model.imageTokens({ height: size, width: size })).fill(model.imageTokenId);
  const pixels = new Float32Array(count * model.imageChannels * size * size);
  fillNormal(pixels, 1, seededGenerator(seed, hashText("pixels")));
  writeFileSync(file, pixels);
  const rows = Array.from({ length: count }, () => ({
    ids: [...places, ...makeTokens(random, prompt, model.vocabSize)],
    labels: makeTokens(random, target, model.vocabSize),
  }));
  return {
    input_ids: rows.map(({ ids }) => ids),
    labels: rows.map(({ labels }) => labels),
    pixels: { file, shape: [model.imageChannels, size, size] },
  };
}

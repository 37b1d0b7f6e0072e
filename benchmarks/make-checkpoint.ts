import { existsSync } from "node:fs";
import { join } from "node:path";
import { type ByteSource, safetensorsChunks, type TensorEntry } from "../src/checkpoint/index.ts";
import { writeDirectoryAtomic } from "../src/checkpoint/node.ts";
import { byteSize, float32ArrayToBfloat16, numel } from "../src/tensor/index.ts";
import { hashText, seededGenerator, uniform, uniformInteger } from "../src/tensor/random.ts";
import { configOf, type LlamaShape, type ShapeName, shapes, tensorShapes } from "./shapes.ts";

export type Storage = "float32" | "bfloat16";
export type CheckpointOptions = { shape: ShapeName; storage: Storage; seed: number };

/** Values that are made at a time. */
const BLOCK = 2 ** 16;

/**
 * A random checkpoint below `cache`, made once: weights N(0, 0.02²), norms 1. It is a function of the options alone.
 * Tensors are made while they are written, so that only a few megabytes of them are in memory.
 */
export async function makeCheckpoint(cache: string, options: CheckpointOptions): Promise<string> {
  const { shape, storage, seed } = options;
  const directory = join(cache, `${shape}-${storage}-${seed}`);
  if (existsSync(join(directory, "config.json"))) return directory;
  const config: LlamaShape = shapes[shape];
  const tensors = new Map(
    [...tensorShapes(config)].map(([name, size]) => [name, randomEntry(name, size, storage, seed)]),
  );
  await writeDirectoryAtomic(
    directory,
    new Map<string, AsyncIterable<Uint8Array> | string>([
      ["model.safetensors", safetensorsChunks(tensors, { format: "pt" })],
      ["config.json", `${JSON.stringify(configOf(config, storage), null, 2)}\n`],
    ]),
  );
  return directory;
}

/** A tensor whose bytes are computed when they are read. */
function randomEntry(name: string, shape: readonly number[], dtype: Storage, seed: number): TensorEntry {
  const width = byteSize(dtype);
  const byteLength = numel(shape) * width;
  const ones = shape.length === 1;
  const block = (index: number): Uint8Array => {
    const values = new Float32Array(BLOCK);
    if (ones) values.fill(1);
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

export type Rows = { readonly input_ids: number[][]; readonly labels: number[][] };

/** Random rows of tokens; the last `labelFraction` of each row carries labels. */
export function makeTokens(
  rows: number,
  sequence: number,
  { vocabSize, labelFraction, seed }: { vocabSize: number; labelFraction: number; seed: number },
): Rows {
  const random = seededGenerator(seed, hashText("tokens"));
  const unlabelled = sequence - Math.max(1, Math.round(sequence * labelFraction));
  const input_ids = Array.from({ length: rows }, () =>
    Array.from({ length: sequence }, () => uniformInteger(random, 3, vocabSize - 1)),
  );
  return {
    input_ids,
    labels: input_ids.map((row) => row.map((token, column) => (column < unlabelled ? -100 : token))),
  };
}

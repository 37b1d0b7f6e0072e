import { existsSync } from "node:fs";
import { join } from "node:path";
import { getPeftModel, LoraConfig } from "../src/adapters/index.ts";
import { type ByteSource, safetensorsChunks, type TensorEntry } from "../src/checkpoint/index.ts";
import { writeDirectoryAtomic } from "../src/checkpoint/node.ts";
import { byteSize, float32ArrayToBfloat16, numel } from "../src/tensor/index.ts";
import { hashText, seededGenerator } from "../src/tensor/random.ts";
import { fillNormal } from "./normal.ts";
import { selectionOf } from "./selections.ts";
import { emptyModel, type ShapeName, shapes, tensorShapes } from "./shapes.ts";

export type Storage = "float32" | "bfloat16";
export type CheckpointOptions = { shape: ShapeName; storage: Storage; seed: number };

/** Values that are made at a time. */
const BLOCK = 2 ** 16;

/**
 * A random checkpoint below `cache`, made once: weights N(0, 0.02²), norms 1, biases 0. It is a function of the options alone.
 * Tensors are made while they are written, so that only a few megabytes of them are in memory.
 */
export async function makeCheckpoint(
  cache: string,
  options: CheckpointOptions,
  say: (line: string) => void,
): Promise<string> {
  const { shape, storage, seed } = options;
  const directory = join(cache, `${shape}-${storage}-${seed}`);
  if (existsSync(join(directory, "config.json"))) return directory;
  say(`Making a checkpoint: ${shape}, ${storage} …`);
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

/** A fresh adapter below `cache`, made once, so that all contestants start from the same one. */
export async function makeAdapter(cache: string, shape: ShapeName, selection: string): Promise<string> {
  const directory = join(cache, `adapter-${shape}-${selection}`);
  if (existsSync(join(directory, "adapter_config.json"))) return directory;
  const { lora } = selectionOf(shape, selection);
  const peft = getPeftModel(
    emptyModel(shapes[shape].config),
    LoraConfig.fromJSON({ peft_type: "LORA", ...lora }),
  );
  await peft.materialize();
  await peft.savePretrained(directory);
  return directory;
}

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  blobStore,
  type Metadata,
  readCheckpoint,
  readTensor,
  readTensorAsFloat32,
  safetensorsChunks,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { dtypes, numel, type Tensor } from "../../src/tensor/index.ts";
import { f32, failure, readBytes, tensorOf } from "./helpers.ts";

const thrown = (tensors: Record<string, Tensor>, metadata?: Metadata) =>
  failure((async () => serializeSafetensors(tensors, metadata))());

const shape = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 });
const anyTensor = fc
  .record({ dtype: fc.constantFrom(...dtypes), shape })
  .chain(({ dtype, shape }) =>
    fc
      .uint8Array({ minLength: numel(shape) * 8, maxLength: numel(shape) * 8 })
      .map((bytes) => tensorOf(dtype, shape, bytes)),
  );
const name = fc.string({ unit: "grapheme-composite", maxLength: 12 }).filter((n) => n !== "__metadata__");
const anyTensors = fc.array(fc.tuple(name, anyTensor), { maxLength: 12 }).map((entries) => new Map(entries));
const anyMetadata = fc.option(
  fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })),
  {
    nil: undefined,
  },
);

/** Compares bits, as NaN payloads must survive too. */
const bits = ({ dtype, shape, data }: Tensor) => ({
  dtype,
  shape: [...shape],
  bits: Buffer.from(data.buffer),
});

describe("properties", () => {
  test("write then read is the identity: every dtype, zero sizes, scalars, any name", async () => {
    await fc.assert(
      fc.asyncProperty(anyTensors, anyMetadata, async (tensors, metadata) => {
        const checkpoint = await readBytes(serializeSafetensors(tensors, metadata));
        expect(Object.entries(checkpoint.metadata).sort()).toEqual(Object.entries(metadata ?? {}).sort());
        expect(checkpoint.tensors.size).toBe(tensors.size);
        for (const [key, tensor] of tensors)
          expect(bits(await readTensor(checkpoint.tensors.get(key)!))).toEqual(bits(tensor));
      }),
      { numRuns: 300 },
    );
  });

  test("the bytes depend on the contents alone, not on their order", () => {
    fc.assert(
      fc.property(anyTensors, anyMetadata, (tensors, metadata) => {
        const reversed = new Map([...tensors].reverse());
        const reversedMetadata = metadata && Object.fromEntries(Object.entries(metadata).reverse());
        expect(serializeSafetensors(reversed, reversedMetadata)).toEqual(
          serializeSafetensors(tensors, metadata),
        );
      }),
    );
  });

  test("tensors are aligned to their element size", async () => {
    await fc.assert(
      fc.asyncProperty(anyTensors, async (tensors) => {
        const checkpoint = await readBytes(serializeSafetensors(tensors));
        for (const { byteOffset, byteLength, shape } of checkpoint.tensors.values())
          if (byteLength > 0) expect(byteOffset % (byteLength / numel(shape))).toBe(0);
      }),
    );
  });

  test("in pieces, copied from another file, the bytes are the same", async () => {
    await fc.assert(
      fc.asyncProperty(anyTensors, anyMetadata, async (tensors, metadata) => {
        const bytes = serializeSafetensors(tensors, metadata);
        const { tensors: entries } = await readBytes(bytes);
        const chunks: Uint8Array[] = [];
        for await (const chunk of safetensorsChunks(entries, metadata)) chunks.push(chunk);
        expect(new Uint8Array(Buffer.concat(chunks))).toEqual(bytes);
      }),
    );
  });
});

describe("as in safetensors/src/tensor.rs", () => {
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
  const six = (shape: number[]): Tensor => ({
    dtype: "float32",
    shape,
    data: Float32Array.of(0, 1, 2, 3, 4, 5),
  });

  test("test_serialization", () => {
    const header = '{"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}}';
    const bytes = serializeSafetensors({ "attn.0": six([1, 2, 3]) });
    expect(text(bytes.slice(0, 72))).toBe(`\x40\0\0\0\0\0\0\0${header}`);
    expect(new Float32Array(bytes.buffer, 72)).toEqual(Float32Array.of(0, 1, 2, 3, 4, 5));
  });

  test("test_serialization_forced_alignement", () => {
    const header = '{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}       ';
    expect(text(serializeSafetensors({ attn0: six([1, 1, 2, 3]) }).slice(0, 80))).toBe(
      `\x48\0\0\0\0\0\0\0${header}`,
    );
  });

  test("test_empty", () => {
    expect(text(serializeSafetensors({}))).toBe("\x08\0\0\0\0\0\0\0{}      ");
    expect(text(serializeSafetensors({}, { framework: "pt" }))).toBe(
      '\x28\0\0\0\0\0\0\0{"__metadata__":{"framework":"pt"}}     ',
    );
  });

  test("test_invalid_header_size_serialization", async () => {
    const error = await thrown({}, { very_large_metadata: "a".repeat(100_000_000) });
    expect(error.code).toBe("header-too-large");
    expect(error.message).toContain("the safetensors format allows 100000000");
  });
});

test("what cannot be written is refused, all of it named", async () => {
  const error = await thrown(
    {
      __metadata__: f32(1),
      "\ud800": f32(1),
      short: { dtype: "float32", shape: [2], data: new Float32Array(1) },
      odd: { dtype: "float32", shape: [-1, -1], data: new Float32Array(1) },
    },
    { number: 1 as unknown as string, half: "\udc00" },
  );
  expect(error.message).toBe(`Cannot write safetensors: 6 problems:
  - tensor "__metadata__" has the name that the format keeps for metadata
  - tensor "\\ud800" has half a surrogate pair in its name
  - tensor "short" has shape [2], which is 2 values, but has 1
  - tensor "odd" has shape [-1,-1], not non-negative integers
  - the metadata value of "number" is number, not a string
  - the metadata entry "half" has half a surrogate pair
Correct the tensors or the metadata; nothing was written.`);
});

test("data that begins inside its buffer", async () => {
  const data = new Float32Array(new Float32Array([9, 1, 2]).buffer, 4, 2);
  const { tensors } = await readBytes(serializeSafetensors({ a: { dtype: "float32", shape: [2], data } }));
  expect((await readTensor(tensors.get("a")!)).data).toEqual(Float32Array.of(1, 2));
});

test("readTensorAsFloat32 converts every dtype", async () => {
  const one: Record<string, number[]> = {
    float64: [0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
    float32: [0, 0, 0x80, 0x3f],
    float16: [0, 0x3c],
    bfloat16: [0x80, 0x3f],
    float8e4m3fn: [0x38],
    float8e5m2: [0x3c],
  };
  const tensors = new Map(dtypes.map((d) => [d, tensorOf(d, [], Uint8Array.from(one[d] ?? [1]))]));
  const checkpoint = await readBytes(serializeSafetensors(tensors));
  for (const entry of checkpoint.tensors.values())
    expect(await readTensorAsFloat32(entry), entry.name).toEqual({
      dtype: "float32",
      shape: [],
      data: Float32Array.of(1),
    });
});

describe("blobStore", () => {
  const blob = (bytes: Uint8Array<ArrayBuffer>) => new Blob([bytes]);

  test("reads a model from files in memory", async () => {
    const store = blobStore(
      new Map([
        ["config.json", new Blob(["{}"])],
        ["model.safetensors", blob(serializeSafetensors({ a: f32(1, 2) }))],
      ]),
    );
    const { tensors } = await readCheckpoint(store);
    expect((await readTensor(tensors.get("a")!)).data).toEqual(Float32Array.of(1, 2));
    expect(await store.list!()).toEqual(["config.json", "model.safetensors"]);
    expect((await failure(store.open("../x"))).code).toBe("unsafe-file-name");
  });

  test("one safetensors file may have any name", async () => {
    const store = blobStore(new Map([["adapter.safetensors", blob(serializeSafetensors({ a: f32(1) }))]]));
    expect((await readCheckpoint(store)).tensors.size).toBe(1);
  });

  test("an unreadable Blob says so", async () => {
    const broken = {
      size: 100,
      slice: () => ({ arrayBuffer: () => Promise.reject(new Error("NotReadableError")) }),
    };
    const store = blobStore(new Map([["model.safetensors", broken as unknown as Blob]]));
    const error = await failure(readCheckpoint(store));
    expect(error.message).toContain(
      "the browser cannot read bytes 0 to 100 of the file (Error: NotReadableError)",
    );
  });
});

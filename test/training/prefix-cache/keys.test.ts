import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import {
  bytesSource,
  openStore,
  readCheckpoint,
  serializeSafetensors,
} from "../../../src/checkpoint/index.ts";
import { input, op, symbol, type Value, type WeightStorage, weight } from "../../../src/graph/index.ts";
import { type Tensor, tensor } from "../../../src/tensor/index.ts";
import { exampleKey, prefixKey } from "../../../src/training/prefix-cache/index.ts";
import { referenceCase, temporaryFolder } from "../trainer-runs.ts";

const ids = (...values: number[]): Tensor<"int64"> =>
  tensor("int64", [values.length], BigInt64Array.from(values, BigInt));

describe("exampleKey", () => {
  const pixels = Float32Array.from({ length: 12 }, (_, i) => i / 7);
  const feeds = { input_ids: ids(1, 2, 3), pixel_values: tensor("float32", [3, 2, 2], pixels) };

  it("is 256 bits in hexadecimal, the same for equal contents", async () => {
    const key = await exampleKey(feeds);
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    const { pixel_values, input_ids } = structuredClone(feeds);
    expect(await exampleKey({ pixel_values, input_ids })).toBe(key);
  });

  it("is of a view's values alone", async () => {
    const view = new Float32Array([5, ...pixels, 5]).subarray(1, 13);
    expect(await exampleKey({ ...feeds, pixel_values: tensor("float32", [3, 2, 2], view) })).toBe(
      await exampleKey(feeds),
    );
  });

  it("takes shared memory", async () => {
    const shared = new Float32Array(new SharedArrayBuffer(48));
    shared.set(pixels);
    expect(await exampleKey({ ...feeds, pixel_values: tensor("float32", [3, 2, 2], shared) })).toBe(
      await exampleKey(feeds),
    );
  });

  it("changes with any byte, shape, dtype, name, and with the scope", async () => {
    const others: [feeds: Record<string, Tensor>, scope?: string][] = [
      [feeds],
      [{ ...feeds, input_ids: ids(1, 2, 4) }],
      [{ ...feeds, input_ids: ids(1, 2, 3, 0) }],
      [{ ...feeds, input_ids: ids(1, 2) }],
      [{ ...feeds, input_ids: tensor("int64", [1, 3], ids(1, 2, 3).data) }],
      [{ ...feeds, input_ids: tensor("uint64", [3], BigUint64Array.from([1n, 2n, 3n])) }],
      [{ ...feeds, pixel_values: tensor("float32", [2, 3, 2], pixels) }],
      [{ pixel_values: feeds.pixel_values }],
      [{ ...feeds, decoder_input_ids: ids() }],
      [{ ids: feeds.input_ids, pixel_values: feeds.pixel_values }],
      [{ input_ids: feeds.input_ids }],
      [{}],
      [feeds, "768 × 768"],
    ];
    const keys = await Promise.all(others.map((of) => exampleKey(...of)));
    expect(new Set(keys).size).toBe(others.length);
    await fc.assert(
      fc.asyncProperty(fc.nat(47), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const bytes = new Uint8Array(pixels.slice().buffer);
        bytes[at]! ^= change;
        const changed = {
          ...feeds,
          pixel_values: tensor("float32", [3, 2, 2], new Float32Array(bytes.buffer)),
        };
        expect(await exampleKey(changed)).not.toBe(keys[0]);
      }),
    );
  });
});

describe("prefixKey", () => {
  const options = { dtype: "float32", engine: "onnxruntime-node 1.30.0 cpu" } as const;
  const storage = (name: string, bytes: Uint8Array, path?: string): WeightStorage => ({
    name,
    dtype: "float32",
    shape: [4, bytes.length / 16],
    source: { ...bytesSource(name, bytes), ...(path !== undefined && { path }) },
    byteOffset: 0,
    byteLength: bytes.length,
  });
  const bytes = (length: number, seed = 1) =>
    Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 24);
  const prefix = (
    a: WeightStorage,
    b: WeightStorage,
    activate: (x: Value) => Value = op.tanh,
  ): Record<string, Value> => {
    const x = input("x", "float32", [symbol("batch"), 4]);
    return { "kept.0": activate(op.add(op.matmul(x, weight(a)), op.matmul(x, weight(b)))) };
  };
  const [a, b] = [bytes(64), bytes(64, 9)];
  const base = () => prefix(storage("a", a), storage("b", b));

  it("is 256 bits in hexadecimal, the same for equal programs, weights and versions", async () => {
    const key = await prefixKey(base(), options);
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(await prefixKey(base(), options)).toBe(key);
  });

  it("changes with the program, the versions, the dtype and the names of what is kept", async () => {
    const weights = [storage("a", a), storage("b", b)] as const;
    const { "kept.0": value } = base();
    const others = await Promise.all([
      prefixKey(base(), options),
      prefixKey(prefix(...weights, op.sigmoid), options),
      prefixKey(
        prefix(...weights, (x) => x),
        options,
      ),
      prefixKey({ "kept.1": base()["kept.0"]! }, options),
      prefixKey({ "kept.0": value!, "kept.1": value! }, options),
      prefixKey(prefix(storage("b", b), storage("a", a)), options),
      prefixKey(base(), { ...options, dtype: "float16" }),
      prefixKey(base(), { ...options, engine: "onnxruntime-node 1.30.1 cpu" }),
      prefixKey(base(), { ...options, graft: "0.0.0" }),
    ]);
    expect(new Set(others).size).toBe(others.length);
  });

  it("changes with any byte of any weight", async () => {
    const key = await prefixKey(base(), options);
    await fc.assert(
      fc.asyncProperty(fc.nat(1), fc.nat(63), fc.integer({ min: 1, max: 255 }), async (which, at, change) => {
        const changed = [a.slice(), b.slice()] as const;
        changed[which]![at]! ^= change;
        const [first, second] = changed;
        expect(await prefixKey(prefix(storage("a", first), storage("b", second)), options)).not.toBe(key);
      }),
    );
  });

  it("changes with the fed parameters that the prefix reads, and with no others", async () => {
    const [x, w] = [input("x", "float32", [symbol("batch"), 2]), input("w", "float32", [2])];
    const key = (fixed: Record<string, number[]>) => {
      const tensors = Object.entries(fixed).map(([name, values]) => [
        name,
        tensor("float32", [2], Float32Array.from(values)),
      ]);
      return prefixKey({ "kept.0": op.mul(x, w) }, { ...options, fixed: Object.fromEntries(tensors) });
    };
    expect(await key({ w: [1, 2] })).not.toBe(await key({ w: [1, 3] }));
    expect(await key({ w: [1, 2], v: [1, 2] })).toBe(await key({ w: [1, 2], v: [1, 3] }));
  });

  it("sees every chunk of a large weight", async () => {
    const large = bytes(17 * 2 ** 20);
    const key = () => prefixKey(prefix(storage("a", large), storage("b", large)), options);
    const keys = [await key()];
    for (const at of [0, 8 * 2 ** 20 - 1, 8 * 2 ** 20, 17 * 2 ** 20 - 1]) {
      large[at]! ^= 1;
      keys.push(await key());
    }
    expect(new Set(keys).size).toBe(5);
  });

  it("reads each weight once, and not again for another prefix that shares its digests", async () => {
    const weights = [storage("a", a, "/m/a"), storage("b", b)] as const;
    const read = weights.map(({ source }) => vi.spyOn(source, "read"));
    const digests = new Map();
    const keys = [
      await prefixKey(prefix(...weights), { ...options, digests }),
      await prefixKey(prefix({ ...weights[0], name: "tied" }, weights[1], op.sigmoid), {
        ...options,
        digests,
      }),
    ];
    expect(read.map((spy) => spy.mock.calls.length)).toEqual([1, 1]);
    expect(keys[0]).not.toBe(keys[1]);
  });

  it("fails as the weight's file does", async () => {
    const broken = { ...storage("a", a), source: { read: () => Promise.reject(new Error("gone")) } };
    await expect(prefixKey(prefix(broken, storage("b", b)), options)).rejects.toThrow("gone");
  });

  it("depends on what is in the files, not on where they are", async () => {
    const folder = await temporaryFolder();
    const write = async (path: string, seed: number) => {
      mkdirSync(join(folder, path, ".."), { recursive: true });
      const weights = { w: tensor("float32", [4, 4], Float32Array.from(bytes(16, seed))) };
      writeFileSync(join(folder, path), serializeSafetensors(weights));
      return (await readCheckpoint(await openStore(join(folder, path)))).tensors.get("w")!;
    };
    const key = async (first: string, second: string, seed = 2) =>
      prefixKey(prefix(await write(first, 1), await write(second, seed)), options);
    const original = await key("a/model.safetensors", "a/other.safetensors");
    expect(await key("elsewhere/x/weights.safetensors", "b.safetensors")).toBe(original);
    expect(await key("a/model.safetensors", "a/other.safetensors", 3)).not.toBe(original);
  });

  it("of a model is the same each time it is loaded, and another for another layer", async () => {
    const key = async (layers: number) => {
      const model = await referenceCase("llama-qv").loadBase();
      const norms = [...model.namedParameters()].filter(([name]) => name.endsWith("layernorm.weight"));
      const x = input("x", "float32", [symbol("batch"), norms[0]![1].shape[0]!]);
      const product = norms.slice(0, layers).reduce((y, [, parameter]) => op.mul(y, parameter.value), x);
      return prefixKey({ "kept.0": product }, options);
    };
    expect(await key(2)).toBe(await key(2));
    expect(await key(1)).not.toBe(await key(2));
  });
});

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodeExample } from "../../../src/training/prefix-cache/encoding.ts";
import {
  type KeptDType,
  MemoryStore,
  type PrefixStore,
  TieredStore,
} from "../../../src/training/prefix-cache/index.ts";
import { DiskStore } from "../../../src/training/prefix-cache/node.ts";
import { expectSame, float32, kept } from "./kept.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "graft-prefix-"));
});
afterEach(() => rm(directory, { recursive: true }));

const size = encodeExample(kept(1), "float32").length;

type Limits = { maxBytes: number; dtype?: KeptDType };
const disk = (limits: Limits): Promise<DiskStore> =>
  DiskStore.open({ directory, key: "k", minFreeBytes: 0, ...limits });
const stores: [string, (limits: Limits) => Promise<PrefixStore>][] = [
  ["MemoryStore", async (limits) => new MemoryStore(limits)],
  ["DiskStore", disk],
  [
    "TieredStore of half memory, half disk",
    async ({ maxBytes, dtype = "float32" }) =>
      new TieredStore([
        new MemoryStore({ maxBytes: Math.floor(maxBytes / 2), dtype }),
        await disk({ maxBytes: Math.ceil(maxBytes / 2), dtype }),
      ]),
  ],
];

describe.each(stores)("%s", (_, open) => {
  let store: PrefixStore;
  afterEach(() => store.close());

  it("gives back what was put, and nothing else", async () => {
    store = await open({ maxBytes: 1e6 });
    expect(store.has("a")).toBe(false);
    expect(await store.get("a")).toBeUndefined();
    expect(await store.put("a", kept(1))).toBe(true);
    expect(await store.put("b", kept(2, 7))).toBe(true);
    expectSame(await store.get("a"), kept(1));
    expectSame(await store.get("b"), kept(2, 7));
    expect(store.has("a")).toBe(true);
    expect(store.has("c")).toBe(false);
    expect(store.stats()).toMatchObject({ examples: 2, hits: 2, misses: 1, refused: 0, damaged: 0 });
  });

  it("keeps the first values of a key", async () => {
    store = await open({ maxBytes: 1e6 });
    await store.put("a", kept(1));
    const { bytes } = store.stats();
    expect(await store.put("a", kept(2))).toBe(true);
    expectSame(await store.get("a"), kept(1));
    expect(store.stats().bytes).toBe(bytes);
  });

  it("is not changed by what happens to the values that were put", async () => {
    store = await open({ maxBytes: 1e6 });
    const values = kept(1);
    const putting = store.put("a", values);
    for (const { data } of values.values()) data.fill(7);
    await putting;
    expectSame(await store.get("a"), kept(1));
  });

  it("narrows to the dtype asked for", async () => {
    store = await open({ maxBytes: 1e6, dtype: "float16" });
    await store.put("a", new Map([["x", float32([2], [1.001, 2])]]));
    expect([...(await store.get("a"))!.get("x")!.data]).toEqual([1.0009765625, 2]);
  });

  it("takes concurrent puts and gets of the same and of other keys", async () => {
    store = await open({ maxBytes: 1e6 });
    const keys = Array.from({ length: 60 }, (_, i) => i % 20);
    const results = await Promise.all(
      keys.map(async (key) => {
        const put = await store.put(`k${key}`, kept(key, (key % 5) + 1));
        const [first, second] = await Promise.all([store.get(`k${key}`), store.get(`k${key}`)]);
        return { put, key, first, second };
      }),
    );
    for (const { put, key, first, second } of results) {
      expect(put).toBe(true);
      expectSame(first, kept(key, (key % 5) + 1));
      expectSame(second, kept(key, (key % 5) + 1));
    }
    expect(store.stats()).toMatchObject({ examples: 20, hits: 120 });
    const largest = encodeExample(kept(1, 5), "float32").length;
    expect(store.stats().bytes).toBeLessThan(20 * (largest + 100)); // each is stored once
  });

  it("is full at its bound, keeps what it has, and still takes what is small enough", async () => {
    store = await open({ maxBytes: 20 * size });
    const taken: number[] = [];
    for (let epoch = 0; epoch < 2; epoch++)
      for (let i = 0; i < 40; i++) {
        if (store.has(`k${i}`)) expectSame(await store.get(`k${i}`), kept(i));
        else if (await store.put(`k${i}`, kept(i))) taken.push(i);
        expect(store.stats().bytes).toBeLessThanOrEqual(20 * size);
      }
    expect(taken).toEqual(Array.from(taken, (_, i) => i)); // the first ones, in the first epoch
    expect(taken.length).toBeGreaterThan(10);
    expect(taken.length).toBeLessThanOrEqual(20);
    expect(store.stats()).toMatchObject({ examples: taken.length, refused: 2 * (40 - taken.length) });
  });

  it("takes nothing without room, and nothing after it is closed", async () => {
    store = await open({ maxBytes: 0 });
    expect(await store.put("a", kept(1))).toBe(false);
    await store.close();
    expect(await store.get("a")).toBeUndefined();
    expect(await store.put("b", kept(1))).toBe(false);
  });

  it("ends what is under way before it closes", async () => {
    store = await open({ maxBytes: 1e6 });
    await store.put("a", kept(1));
    const reading = store.get("a");
    await store.close();
    expectSame(await reading, kept(1));
    await store.close();
  });
});

describe("MemoryStore", () => {
  it("refuses when the system has no memory to give", async () => {
    const store = new MemoryStore({ maxBytes: Infinity });
    const huge = { dtype: "float32", shape: [2 ** 40], data: { length: 0, byteLength: 2 ** 42 } };
    expect(await store.put("a", new Map([["x", huge as never]]))).toBe(false);
    expect(store.stats()).toMatchObject({ examples: 0, refused: 1 });
  });
});

describe("TieredStore", () => {
  it("fills the first tier, then the second, and reads from both", async () => {
    const memory = new MemoryStore({ maxBytes: 2 * size });
    const second = await disk({ maxBytes: 1e6 });
    const store = new TieredStore([memory, second]);
    for (let i = 0; i < 5; i++) expect(await store.put(`k${i}`, kept(i))).toBe(true);
    expect([memory.stats().examples, second.stats().examples]).toEqual([2, 3]);
    for (let i = 0; i < 5; i++) expectSame(await store.get(`k${i}`), kept(i));
    expect(store.stats()).toEqual({
      examples: 5,
      bytes: memory.stats().bytes + second.stats().bytes,
      hits: 5,
      misses: 0,
      refused: 0,
      damaged: 0,
    });
    await store.close();
  });
});

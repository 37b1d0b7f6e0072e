import { describe, expect, it } from "vitest";
import { RecentStore } from "../../../src/training/prefix-cache/recent-store.ts";
import { expectSame, kept } from "./kept.ts";

const size = [...kept(1).values()].reduce((sum, { data }) => sum + data.byteLength, 0);

describe("RecentStore", () => {
  it("gives up what was used longest ago", async () => {
    const store = new RecentStore(2 * size);
    await store.put("a", kept(1));
    await store.put("b", kept(2));
    expectSame(await store.get("a"), kept(1));
    expect(await store.put("c", kept(3))).toBe(true);
    expect(["a", "b", "c"].map((key) => store.has(key))).toEqual([true, false, true]);
    expect(await store.get("b")).toBeUndefined();
    expect(store.stats()).toMatchObject({ examples: 2, bytes: 2 * size, hits: 1, misses: 1, refused: 0 });
  });

  it("takes more room once something that it gave up is asked for", async () => {
    const store = new RecentStore(3 * size, { firstBytes: size });
    await store.put("a", kept(1));
    await store.put("b", kept(2));
    expect(["a", "b"].map((key) => store.has(key))).toEqual([false, true]);
    await store.get("never put");
    await store.put("c", kept(3));
    expect(store.stats().examples).toBe(1);
    expect(await store.get("a")).toBeUndefined();
    await store.put("a", kept(1));
    expect(["a", "b", "c"].map((key) => store.has(key))).toEqual([true, false, true]);
    await store.get("b");
    for (const key of ["b", "d", "e"]) await store.put(key, kept(4));
    expect(store.stats()).toMatchObject({ examples: 3, bytes: 3 * size });
  });

  it("keeps nothing without room, and nothing once it is closed", async () => {
    const store = new RecentStore(size);
    expect(await store.put("a", kept(1))).toBe(true);
    await store.close();
    expect(store.stats()).toMatchObject({ examples: 0, bytes: 0 });
    const none = new RecentStore(size - 1);
    expect(await none.put("a", kept(1))).toBe(false);
    expect(none.stats()).toMatchObject({ examples: 0, refused: 1 });
  });
});

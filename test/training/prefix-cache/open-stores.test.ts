import { afterEach, describe, expect, it, vi } from "vitest";
import type { Cut } from "../../../src/graph/index.ts";
import { openStores, type StoresOptions } from "../../../src/training/prefix-cache/stores.ts";

const cut = { bytesPerExample: () => 1000, savedFlops: 5e9, totalFlops: 1e10 } as unknown as Cut;
const options: StoresOptions = {
  ...{ mode: "memory", dtype: "float32", maxBytes: undefined, directory: undefined, own: true },
  ...{ examples: 10, epochs: 3 },
};
const open = (changes: Partial<StoresOptions> = {}) =>
  openStores(cut, { ...options, ...changes }, { sizes: {}, key: async () => "key" });

afterEach(() => vi.unstubAllGlobals());

describe("openStores", () => {
  it("leaves what is wanted again soon an eighth of the memory, or what a limit leaves", async () => {
    const { store, recentBytes } = await open();
    expect(store).toBeDefined();
    expect(recentBytes).toBeGreaterThan(1e6);
    expect((await open({ maxBytes: 12_000 })).recentBytes).toBe(2000);
    expect((await open({ maxBytes: 5000 })).recentBytes).toBe(0);
  });

  it("keeps nothing where there is no Web Crypto, and says so", async () => {
    vi.stubGlobal("crypto", {});
    const { report, store } = await open();
    expect(store).toBeUndefined();
    expect(report).toMatchObject({ mode: "off", reason: expect.stringContaining("https") });
  });
});

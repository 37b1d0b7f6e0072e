import { spawn } from "node:child_process";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { encodeExample } from "../../../src/training/prefix-cache/encoding.ts";
import {
  DiskStore,
  type DiskStoreOptions,
  freeDisk,
  freeMemory,
  removeStale,
} from "../../../src/training/prefix-cache/node.ts";
import { expectSame, kept, plain } from "./kept.ts";

let directory: string;
let open: DiskStore[];
beforeEach(async () => {
  directory = await fs.mkdtemp(join(tmpdir(), "graft-prefix-"));
  open = [];
});
afterEach(async () => {
  for (const store of open) await store.close();
  await fs.rm(directory, { recursive: true });
});

const folder = () => join(directory, "k");
async function openStore(options: Partial<DiskStoreOptions> = {}): Promise<DiskStore> {
  const store = await DiskStore.open({ directory, key: "k", maxBytes: 1e6, minFreeBytes: 0, ...options });
  open.push(store);
  return store;
}

/** A store that held examples k0 …, closed again; its two files. */
async function written(count: number): Promise<{ data: string; index: string }> {
  const store = await openStore();
  for (let i = 0; i < count; i++) await store.put(`k${i}`, kept(i, 1 + (i % 3)));
  await store.close();
  const names = (await fs.readdir(folder())).map((name) => join(folder(), name));
  expect(names).toHaveLength(2);
  return {
    data: names.find((name) => name.endsWith(".data"))!,
    index: names.find((name) => name.endsWith(".index"))!,
  };
}

/** Opens the store and checks every example: as it was, or missing. Returns those that are there. */
async function readable(count: number): Promise<number[]> {
  const warn = vi.fn();
  const store = await openStore({ onWarning: warn });
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const values = await store.get(`k${i}`);
    if (values === undefined) continue;
    const [actual, expected] = [plain(values), plain(kept(i, 1 + (i % 3)))];
    if (!isDeepStrictEqual(actual, expected)) expect(actual).toEqual(expected); // which takes its time
    found.push(i);
  }
  expect(warn).not.toHaveBeenCalled();
  expect(store.stats().examples).toBe(found.length);
  await store.close();
  return found;
}

const all = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("DiskStore", () => {
  it("gives a later run what an earlier one stored, and lets it add to it", async () => {
    await written(4);
    const store = await openStore();
    expect(store.stats()).toMatchObject({ examples: 4 });
    for (let i = 0; i < 4; i++) expectSame(await store.get(`k${i}`), kept(i, 1 + (i % 3)));
    await store.put("k4", kept(4, 2));
    await store.close();
    expect(await readable(5)).toEqual(all(5));
  });

  it("makes no file unless something is stored", async () => {
    const store = await openStore({ directory: join(directory, "not", "there") });
    expect(await store.get("a")).toBeUndefined();
    await store.close();
    expect(await fs.readdir(directory)).toEqual([]);
  });

  it("counts what earlier runs left towards its bound", async () => {
    await written(4);
    const sizes = await Promise.all(
      (await fs.readdir(folder())).map(async (name) => (await fs.stat(join(folder(), name))).size),
    );
    const used = sizes.reduce((a, b) => a + b);
    const store = await openStore({ maxBytes: used + 100 });
    expect(store.stats().bytes).toBe(used);
    expect(await store.put("k4", kept(4))).toBe(false);
    expect(store.stats()).toMatchObject({ examples: 4, refused: 1 });
  });

  it("says as many bytes as the files have", async () => {
    const store = await openStore();
    for (let i = 0; i < 3; i++) await store.put(`k${i}`, kept(i));
    let used = 0;
    for (const name of await fs.readdir(folder())) used += (await fs.stat(join(folder(), name))).size;
    expect(store.stats().bytes).toBe(used);
  });

  it("reads an example with one call", async () => {
    await written(3);
    const calls = { open: 0, read: 0 };
    const system = {
      statfs: fs.statfs,
      open: async (...args: Parameters<typeof fs.open>) => {
        calls.open++;
        const handle = await fs.open(...args);
        const read = handle.read.bind(handle);
        handle.read = ((...args: Parameters<typeof read>) => {
          calls.read++;
          return read(...args);
        }) as typeof handle.read;
        return handle;
      },
    };
    const store = await openStore({ system });
    for (let i = 0; i < 3; i++) await store.get(`k${i}`);
    expect(calls).toEqual({ open: 1, read: 3 });
  });
});

describe("DiskStore, interrupted or damaged", () => {
  it("has every example whose index line was written, wherever the index ends", async () => {
    const { index } = await written(4);
    const whole = await fs.readFile(index);
    const lineEnds = [...whole.entries()].filter(([, byte]) => byte === 10).map(([at]) => at + 1);
    for (let length = 0; length <= whole.length; length++) {
      await fs.writeFile(index, whole.subarray(0, length));
      const lines = lineEnds.filter((end) => end <= length).length;
      expect(await readable(4)).toEqual(all(Math.max(0, lines - 1)));
    }
  });

  it("has every example whose bytes are all there, wherever the data end", async () => {
    const { data } = await written(4);
    const bytes = await fs.readFile(data);
    const sizes = all(4).map((i) => encodeExample(kept(i, 1 + (i % 3)), "float32").length);
    const ends = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((a, b) => a + b));
    expect(ends.at(-1)).toBe(bytes.length);
    for (let length = 0; length <= bytes.length; length++) {
      await fs.writeFile(data, bytes.subarray(0, length));
      const whole = ends.filter((end) => end <= length).length;
      const store = await openStore();
      expect(store.stats().examples).toBe(whole); // found missing without reading
      await store.close();
      expect(await readable(4)).toEqual(all(whole));
    }
  });

  it("takes no example for another, whichever byte of the index has changed", async () => {
    const { index } = await written(4);
    const bytes = await fs.readFile(index);
    for (const [at] of bytes.entries())
      for (const change of [1, 2]) {
        await fs.writeFile(
          index,
          bytes.map((byte, i) => (i === at ? byte ^ change : byte)),
        );
        const start = bytes.indexOf("\n");
        expect((await readable(4)).length).toBeGreaterThanOrEqual(at <= start ? 0 : 2);
      }
  });

  it("never returns wrong values after any bits have flipped, and stores again what was damaged", async () => {
    const files = Object.values(await written(4));
    const originals = await Promise.all(files.map((file) => fs.readFile(file)));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(1), fc.nat(), fc.nat(7)), { minLength: 1, maxLength: 4 }),
        async (flips) => {
          const damaged = originals.map((bytes) => Uint8Array.from(bytes));
          for (const [file, at, bit] of flips) damaged[file]![at % damaged[file]!.length]! ^= 1 << bit;
          for (const [i, file] of files.entries()) await fs.writeFile(file, damaged[i]!);
          const found = await readable(4);
          // Each flip spoils at most two lines of the index, or one example.
          if (!flips.some(([file]) => file === files.findIndex((name) => name.endsWith(".index"))))
            expect(found.length).toBeGreaterThanOrEqual(4 - flips.length);
          const store = await openStore();
          for (let i = 0; i < 4; i++)
            if ((await store.get(`k${i}`)) === undefined) {
              expect(store.has(`k${i}`)).toBe(false);
              expect(await store.put(`k${i}`, kept(i, 1 + (i % 3)))).toBe(true);
            }
          await store.close();
          expect(await readable(4)).toEqual(all(4));
          for (const name of await fs.readdir(folder()))
            if (!files.includes(join(folder(), name))) await fs.rm(join(folder(), name));
        },
      ),
      { numRuns: 150 },
    );
  });

  it("counts a damaged example as missing, and reads the one that replaces it ever after", async () => {
    const { data } = await written(2);
    const bytes = await fs.readFile(data);
    bytes[bytes.length - 50]! ^= 1;
    await fs.writeFile(data, bytes);
    const store = await openStore();
    expect(store.has("k1")).toBe(true);
    expect(await Promise.all([store.get("k1"), store.get("k1")])).toEqual([undefined, undefined]);
    expect(store.stats()).toMatchObject({ examples: 1, damaged: 1, misses: 2, hits: 0 });
    await store.put("k1", kept(1, 2));
    await store.close();
    for (let run = 0; run < 4; run++) expect(await readable(2)).toEqual([0, 1]);
  });

  it("ignores an index of another version, one without data, and files that are not its own", async () => {
    const { index, data } = await written(2);
    const text = await fs.readFile(index, "utf8");
    await fs.writeFile(index, text.replace("version 1", "version 2"));
    await fs.writeFile(join(folder(), "notes.index"), text);
    await fs.writeFile(join(folder(), "0123456789abcdef.index"), text);
    expect(await readable(2)).toEqual([]);
    await fs.writeFile(index, text);
    expect(await readable(2)).toEqual([0, 1]);
    await fs.rm(data);
    expect(await readable(2)).toEqual([]);
  });

  it("survives that the folder is deleted under it", async () => {
    const store = await openStore();
    await store.put("a", kept(1));
    await fs.rm(folder(), { recursive: true });
    expectSame(await store.get("a"), kept(1));
    expect(typeof (await store.put("b", kept(2)))).toBe("boolean");
  });
});

describe("DiskStore, on a disk that fails", () => {
  const failure = (code: string) => Object.assign(new Error(`${code}: it fails`), { code });

  /** The system, but that write number `at` writes only half of its bytes, and the next ones fail. */
  const fullAt = (at: number) => {
    let writes = 0;
    return {
      statfs: fs.statfs,
      open: async (...args: Parameters<typeof fs.open>) => {
        const handle = await fs.open(...args);
        const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
        handle.write = (async (bytes: Uint8Array, from: number, length: number, position: number | null) => {
          writes++;
          if (writes > at) throw failure("ENOSPC");
          return write(bytes, from, writes === at ? Math.floor(length / 2) : length, position);
        }) as typeof handle.write;
        return handle;
      },
    };
  };

  it("takes nothing more once it is full, warns once, and leaves nothing that is wrong", async () => {
    for (let at = 1; at <= 8; at++) {
      const warn = vi.fn();
      const store = await openStore({ system: fullAt(at), onWarning: warn });
      const put = await Promise.all(all(4).map((i) => store.put(`k${i}`, kept(i, 1 + (i % 3)))));
      const stored = Math.max(0, Math.floor(at / 2) - 1); // the index's start, then two writes for each
      expect(put).toEqual(all(4).map((i) => i < stored));
      expect(warn.mock.calls).toEqual([
        [
          `Cannot write the cache of frozen activations in ${folder()}: ENOSPC: it fails; what is not there yet is computed again in each epoch.`,
        ],
      ]);
      for (let i = 0; i < stored; i++) expectSame(await store.get(`k${i}`), kept(i, 1 + (i % 3)));
      await store.close();
      const names = await fs.readdir(folder());
      const data = names.find((name) => name.endsWith(".data"))!;
      const size = all(stored).reduce(
        (sum, i) => sum + encodeExample(kept(i, 1 + (i % 3)), "float32").length,
        0,
      );
      expect((await fs.stat(join(folder(), data))).size).toBe(size);
      expect(await readable(4)).toEqual(all(stored));
      await fs.rm(folder(), { recursive: true });
    }
  });

  it("goes on writing after a short write that is no failure", async () => {
    const system = {
      statfs: fs.statfs,
      open: async (...args: Parameters<typeof fs.open>) => {
        const handle = await fs.open(...args);
        const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>;
        handle.write = ((bytes: Uint8Array, from: number, length: number, position: number | null) =>
          write(bytes, from, Math.min(length, 7), position)) as typeof handle.write;
        return handle;
      },
    };
    const store = await openStore({ system });
    for (let i = 0; i < 3; i++) expect(await store.put(`k${i}`, kept(i, 1 + (i % 3)))).toBe(true);
    await store.close();
    expect(await readable(3)).toEqual(all(3));
  });

  it("reads what is there where nothing can be written", async () => {
    await written(2);
    const warn = vi.fn();
    const open = async (path: Parameters<typeof fs.open>[0], flags?: string | number) => {
      if (flags !== "r") throw failure("EROFS");
      return fs.open(path, flags);
    };
    const store = await openStore({ system: { statfs: fs.statfs, open }, onWarning: warn });
    expect(await store.put("k5", kept(5))).toBe(false);
    expect(await store.put("k6", kept(6))).toBe(false);
    expectSame(await store.get("k0"), kept(0, 1));
    expect(warn).toHaveBeenCalledTimes(1);
    expect(store.stats()).toMatchObject({ examples: 2, refused: 2, hits: 1 });
  });

  it("refuses where a file is in the way of its folder", async () => {
    await fs.writeFile(folder(), "a file");
    const warn = vi.fn();
    const store = await openStore({ onWarning: warn });
    expect(await store.put("a", kept(1))).toBe(false);
    expect(warn).toHaveBeenCalledTimes(1);
  });

  it("leaves the free space that others need", async () => {
    const warn = vi.fn();
    const statfs = vi.fn(async () => ({ bavail: 3 * 2 ** 20, bsize: 1024 }));
    const system = { open: fs.open, statfs: statfs as unknown as typeof fs.statfs };
    const store = await openStore({ system, minFreeBytes: 3 * 2 ** 30 });
    expect(await store.put("a", kept(1))).toBe(true);
    expect(await store.put("b", kept(2))).toBe(true);
    expect(statfs).toHaveBeenCalledTimes(1); // not for every example
    const greedy = await openStore({ system, minFreeBytes: 3 * 2 ** 30 + 1, onWarning: warn });
    expect(await greedy.put("c", kept(1))).toBe(false);
    expect(warn.mock.calls[0]![0]).toContain("the disk is nearly full");
  });

  it("counts what cannot be read as missing", async () => {
    await written(2);
    const warn = vi.fn();
    const system = {
      statfs: fs.statfs,
      open: async (...args: Parameters<typeof fs.open>) => {
        const handle = await fs.open(...args);
        handle.read = () => Promise.reject(failure("EIO"));
        return handle;
      },
    };
    const store = await openStore({ system, onWarning: warn });
    expect(await store.get("k0")).toBeUndefined();
    expect(await store.get("k1")).toBeUndefined();
    expect(warn.mock.calls).toEqual([
      [
        `Cannot read the cache of frozen activations in ${folder()}: EIO: it fails; what is missing is computed again.`,
      ],
    ]);
  });
});

describe("DiskStore in several processes", () => {
  const worker = fileURLToPath(new URL("store-process.ts", import.meta.url));
  /** Puts examples from..to in a process of its own; `kill`: after so many have been reported. */
  const child = (from: number, to: number, kill?: number) =>
    new Promise<number>((done, fail) => {
      const process = spawn(
        globalThis.process.execPath,
        ["--import", "tsx", worker, directory, `${from}`, `${to}`],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      let reported = 0;
      process.stdout.on("data", (text: Buffer) => {
        reported += text.toString().split("\n").length - 1;
        if (kill !== undefined && reported >= kill) process.kill("SIGKILL");
      });
      process.on("error", fail);
      process.on("close", () => done(reported));
    });

  it("two at once store what both have, in files of their own", async () => {
    await Promise.all([child(0, 200), child(100, 300)]);
    expect(await fs.readdir(folder())).toHaveLength(4);
    expect(await readable(300)).toEqual(all(300));
  });

  it("one that is killed leaves all it had reported", async () => {
    const reported = await child(0, 100_000, 50);
    const found = await readable(reported + 10);
    expect(found.length).toBeGreaterThanOrEqual(reported);
    expect(found).toEqual(all(found.length));
  });
});

describe("removal", () => {
  const key = (digit: string) => digit.repeat(64);
  const fill = async (name: string) => {
    const store = await openStore({ key: name });
    await store.put("a", kept(1));
    await store.close();
  };

  it("removeStale deletes the folders of other keys, and nothing that no store made", async () => {
    for (const digit of ["a", "b", "c"]) await fill(key(digit));
    await fs.mkdir(join(directory, "pictures"));
    await fs.writeFile(join(directory, key("d")), "a file");
    await fs.writeFile(join(directory, key("c"), "mine.txt"), "keep");
    const { folders, bytes } = await removeStale(directory, [key("b")]);
    expect(folders.sort()).toEqual([key("a"), key("c")]);
    expect(bytes).toBeGreaterThan(200);
    expect((await fs.readdir(directory)).sort()).toEqual([key("b"), key("c"), key("d"), "pictures"].sort());
    expect(await fs.readdir(join(directory, key("c")))).toEqual(["mine.txt"]);
    expect(await removeStale(join(directory, "none"), key("b"))).toEqual({ folders: [], bytes: 0 });
  });

  it("close({ remove: true }) deletes the files and the folders that the store made", async () => {
    const store = await openStore({ directory: join(directory, "a", "b") });
    await store.put("a", kept(1));
    await store.close({ remove: true });
    expect(await fs.readdir(directory)).toEqual([]);
    await fs.mkdir(join(directory, "c"));
    const other = await openStore({ directory: join(directory, "c") });
    await other.put("a", kept(1));
    await other.close({ remove: true });
    expect(await fs.readdir(join(directory, "c"))).toEqual([]);
  });
});

describe("room", () => {
  it("freeDisk asks the nearest folder that exists", async () => {
    const here = await freeDisk(directory);
    expect(here).toBeGreaterThan(0);
    expect(Math.abs((await freeDisk(join(directory, "not", "there")))! - here!)).toBeLessThan(1e9);
  });

  it("freeMemory is some", () => {
    expect(freeMemory()).toBeGreaterThan(0);
  });
});

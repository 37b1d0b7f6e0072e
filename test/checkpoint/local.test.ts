import { appendFile, mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import {
  openStore,
  readCheckpoint,
  readJson,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { fileSource } from "../../src/checkpoint/node.ts";
import { f32, failure, fileOf, temporaryDirectory } from "./helpers.ts";

const model = serializeSafetensors({ a: f32(1, 2) });

/** A directory of these files. */
async function directory(files: Record<string, Uint8Array | string>): Promise<string> {
  const path = await temporaryDirectory();
  for (const [name, contents] of Object.entries(files)) await writeFile(join(path, name), contents);
  return path;
}

const read = async (location: string) => readCheckpoint(await openStore(location));

describe("a location", () => {
  test("is a directory", async () => {
    const path = await directory({ "model.safetensors": model, "config.json": '{"a": 1}' });
    const store = await openStore(path);
    const entry = (await readCheckpoint(store)).tensors.get("a")!;
    expect((await readTensor(entry)).data).toEqual(Float32Array.of(1, 2));
    expect(entry.source.path).toBe(join(path, "model.safetensors"));
    expect(await readJson(store, "config.json")).toEqual({ a: 1 });
    expect(store).toMatchObject({ name: path, path });
  });

  test("is one file, with config.json beside it, or a file: URL", async () => {
    const path = await directory({ "other.safetensors": model, "config.json": '{"a": 1}' });
    const store = await openStore(join(path, "other.safetensors"));
    expect((await readCheckpoint(store)).tensors.size).toBe(1);
    expect(await readJson(store, "config.json")).toEqual({ a: 1 });
    expect((await read(pathToFileURL(join(path, "other.safetensors")).href)).tensors.size).toBe(1);
  });

  test("is a shard index", async () => {
    const index = { weight_map: { a: "s.safetensors" } };
    const path = await directory({
      "s.safetensors": model,
      "m.safetensors.index.json": JSON.stringify(index),
    });
    expect((await read(join(path, "m.safetensors.index.json"))).tensors.size).toBe(1);
  });

  test("is a store already", async () => {
    const store = await openStore(await directory({}));
    expect(await openStore(store)).toBe(store);
  });

  test("has files that are links, as in the Hub's cache", async () => {
    const path = await directory({ blob: model });
    await mkdir(join(path, "snapshot"));
    await symlink("../blob", join(path, "snapshot", "model.safetensors"));
    expect((await read(join(path, "snapshot"))).tensors.size).toBe(1);
  });
});

describe("nothing there", () => {
  test("names what is near, in the part of the path that is missing", async () => {
    const path = await directory({});
    await mkdir(join(path, "tiny-llama"));
    const error = await failure(read(join(path, "tiny-lama", "checkpoint")));
    expect(error.message).toBe(
      `${join(path, "tiny-lama", "checkpoint")}: no such file or directory: there is no ${join(path, "tiny-lama")}. Closest: tiny-llama.`,
    );
  });

  test("a directory that was meant, but looks like a model on the Hub, says how to name that", async () => {
    expect((await failure(read("test/no-such-model"))).message).toBe(
      "test/no-such-model: no such file or directory. Check the path. For the model of that name on the Hub, write hf://test/no-such-model.",
    );
  });

  test("no weights beside config.json: which names were looked for", async () => {
    const error = await failure(read(await directory({ "config.json": "{}" })));
    expect(error.code).toBe("no-weights");
    expect(error.message).toContain(
      "there are no weights beside config.json (looked for model.safetensors and model.safetensors.index.json). Download",
    );
  });

  test("weights under another name", async () => {
    const error = await failure(read(await directory({ "model.fp16.safetensors": model })));
    expect(error.message).toContain("Name the file to read instead: model.fp16.safetensors.");
  });

  test("an adapter", async () => {
    const error = await failure(
      read(await directory({ "adapter_config.json": "{}", "adapter_model.safetensors": model })),
    );
    expect(error.code).toBe("adapter");
    expect(error.message).toContain("This is an adapter, not a model");
  });

  test.skipIf(process.platform === "win32")("a file where a directory should be", async () => {
    const path = await directory({ file: "x" });
    expect((await failure(read(join(path, "file", "model")))).message).toContain("no such file or directory");
  });
});

describe("something else there", () => {
  test.each([
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "m.pt",
    "m.pth",
    "m.ckpt",
    "pytorch_model-00001-of-00002.bin",
  ])("%s is refused by its name, as a file and in a directory", async (name) => {
    const path = await directory({ [name]: "x", "config.json": "{}" });
    for (const location of [join(path, name), path]) {
      const error = await failure(read(location));
      expect(error.code).toBe("pickle");
      expect(error.message).toContain(name);
      expect(error.message).toContain("save_pretrained(");
      expect(error.message).toContain('save_file(torch.load("FILE", weights_only=True');
    }
  });

  test("pickles beside model.safetensors do not matter", async () => {
    expect(
      (await read(await directory({ "pytorch_model.bin": "x", "model.safetensors": model }))).tensors.size,
    ).toBe(1);
  });

  const zip = (crafted: number[]) =>
    Uint8Array.from([0x50, 0x4b, 3, 4, ...crafted, ...new Array(200).fill(1)]);
  test.each<[string, string, Uint8Array | string]>([
    ["pickle", "torch.save's zip", zip([0, 0, 8, 8])],
    ["pickle", "a zip whose first 8 bytes could be a header's length", zip([0, 0, 0, 0])],
    ["pickle", "a bare pickle", Uint8Array.from([0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20])],
    [
      "git-lfs-pointer",
      "a Git LFS pointer",
      "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n",
    ],
    ["html", "an HTML page", "<!doctype html><html>"],
    ["xml", "a storage server's error", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'],
    ["gguf", "GGUF", Uint8Array.from([...Buffer.from("GGUF"), 3, 0, 0, 0, 1, 2, 3, 4])],
    ["gzip", "gzip", Uint8Array.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3])],
    ["json", "JSON", '{"weight_map": {}}'],
  ])("%s: %s named model.safetensors", async (code, _, contents) => {
    const path = await directory({ "model.safetensors": contents });
    const error = await failure(read(path));
    expect(error.code).toBe(code);
    expect(error.message).toContain(join(path, "model.safetensors"));
  });

  test("a header whose length begins like a pickle's magic is a header, also when cut short", async () => {
    // 0x0280 = 640 bytes: 80 02 00 …
    const file = fileOf('{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'.padEnd(640), 4);
    expect((await read(await directory({ "model.safetensors": file }))).tensors.size).toBe(1);
    const error = await failure(read(await directory({ "model.safetensors": file.slice(0, 300) })));
    expect(error.code).toBe("invalid-header-length");
  });

  test.skipIf(process.platform === "win32")("a device or a directory named as a file", async () => {
    expect((await failure(read("/dev/zero"))).code).toBe("not-a-file");
    const path = await directory({});
    await mkdir(join(path, "model.safetensors"));
    expect((await failure(read(path))).code).toBe("is-a-directory");
  });
});

describe("fileSource", () => {
  test("a file that changed since it was opened is not read", async () => {
    const path = join(await directory({ "model.safetensors": model }), "model.safetensors");
    const entry = (await read(path)).tensors.get("a")!;
    await appendFile(path, "x");
    const error = await failure(readTensor(entry));
    expect(error.code).toBe("changed");
    expect(error.message).toBe(`${path}: the file changed since it was opened. Open it again.`);
  });

  test("a file that is gone", async () => {
    const path = join(await directory({ x: "x" }), "y");
    const error = await failure(fileSource(path));
    expect(error.message).toBe(
      `${path}: cannot read: there is no such file or directory (ENOENT). Check the path.`,
    );
  });

  test("ranges outside of the file", async () => {
    const source = await fileSource(join(await directory({ x: "abc" }), "x"));
    expect(await source.read(1, 3)).toEqual(Uint8Array.of(98, 99));
    expect(await source.read(3, 3)).toEqual(new Uint8Array(0));
    for (const [start, end] of [
      [0, 4],
      [-1, 2],
      [2, 1],
      [0, Number.NaN],
    ] as const)
      expect((await failure(source.read(start, end))).code).toBe("out-of-range");
  });

  test("a tensor larger than memory", async () => {
    const size = 2 ** 40;
    const path = join(
      await directory({
        "big.safetensors": fileOf({ a: { dtype: "U8", shape: [size], data_offsets: [0, size] } }),
      }),
      "big.safetensors",
    );
    const { length } = fileOf({ a: { dtype: "U8", shape: [size], data_offsets: [0, size] } });
    await truncate(path, length + size); // sparse: takes no space
    const error = await failure(readTensor((await read(path)).tensors.get("a")!));
    expect(error.code).toBe("out-of-memory");
  });

  test("aborting gives the signal's reason", async () => {
    const source = await fileSource(join(await directory({ x: "abc" }), "x"));
    const reason = new Error("enough");
    await expect(source.read(0, 3, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

import { describe, expect, test } from "vitest";
import {
  type FileStore,
  readCheckpoint,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { f32, failure, memoryStore } from "./helpers.ts";

const index = "model.safetensors.index.json";
const one = "model-00001-of-00002.safetensors";
const two = "model-00002-of-00002.safetensors";
const shard = (...names: string[]) =>
  serializeSafetensors(Object.fromEntries(names.map((name) => [name, f32(name.length)])), { format: "pt" });
const store = (weightMap: Record<string, unknown>, files: Record<string, Uint8Array | string>): FileStore =>
  memoryStore({ [index]: JSON.stringify({ metadata: { total_size: 8 }, weight_map: weightMap }), ...files });

describe("a sharded checkpoint", () => {
  test("has the tensors of all shards", async () => {
    const checkpoint = await readCheckpoint(
      store({ a: one, bb: two }, { [one]: shard("a"), [two]: shard("bb") }),
    );
    expect([...checkpoint.tensors.keys()]).toEqual(["a", "bb"]);
    expect(checkpoint.metadata).toEqual({ format: "pt" });
    expect((await readTensor(checkpoint.tensors.get("bb")!)).data).toEqual(Float32Array.of(2));
    expect(checkpoint.tensors.get("bb")!.source.name).toBe(two);
  });

  test("has also those that the index does not name, as in transformers", async () => {
    const { tensors } = await readCheckpoint(store({ a: one }, { [one]: shard("a", "extra") }));
    expect([...tensors.keys()]).toEqual(["a", "extra"]);
  });

  test("model.safetensors comes before the index, as in transformers", async () => {
    const { tensors } = await readCheckpoint(store({ a: one }, { "model.safetensors": shard("whole") }));
    expect([...tensors.keys()]).toEqual(["whole"]);
  });

  test("all missing shards are named", async () => {
    const weightMap = { a: one, b: two, c: "model-3.safetensors" };
    const error = await failure(readCheckpoint(store(weightMap, { [two]: shard("b") })));
    expect(error.code).toBe("missing-shards");
    expect(error.message).toBe(
      `model: 2 of the 3 files that ${index} names are missing: ${one}, model-3.safetensors. ` +
        "Download them into the same directory.",
    );
  });

  test("tensors absent from their shard, or in two, are named together", async () => {
    const files = { [one]: shard("a", "both"), [two]: shard("b", "both") };
    const error = await failure(readCheckpoint(store({ a: two, b: two, c: one, both: one }, files)));
    expect(error.code).toBe("inconsistent-shards");
    expect(error.message).toContain(`tensor "both" is in both ${one} and ${two}`);
    expect(error.message).toContain(`tensor "a" should be in ${two} but is in ${one}`);
    expect(error.message).toContain(`tensor "c" should be in ${one} but is in none of the shards`);
  });

  test("all damaged shards are named", async () => {
    const files = { [one]: shard("a").slice(0, -1), [two]: new Uint8Array(3) };
    const error = await failure(readCheckpoint(store({ a: one, b: two }, files)));
    expect(error.message).toContain("2 of 2 shards cannot be used");
    expect(error.message).toContain(`${one}: the tensors need 4 bytes of data, but the file has 3`);
    expect(error.message).toContain(`${two}: the file has 3 bytes`);
  });

  test.each([
    ["../secret.safetensors", "leaves the directory"],
    ["sub/../../x", "leaves the directory"],
    ["/etc/passwd", "is absolute"],
    ["\\\\host\\x", "is absolute"],
    ["C:\\x", "is absolute"],
    ["file:///x", "is absolute"],
    ["https://host/x", "is absolute"],
    ["a\\..\\..\\x", "contains a backslash"],
    ["a\0b", "contains a NUL character"],
    ["./x", "has an empty or '.' segment"],
    ["", "is empty"],
  ])("the shard name %j is refused and never opened", async (name, reason) => {
    const opened: string[] = [];
    const files = store({ a: name, b: one }, { [one]: shard("b"), [name]: shard("a") });
    const spied: FileStore = {
      ...files,
      open: async (file) => {
        opened.push(file);
        return files.open(file);
      },
    };
    const error = await failure(readCheckpoint(spied));
    expect(error.code).toBe("unsafe-file-name");
    expect(error.message).toContain(reason);
    expect(opened).not.toContain(name);
  });

  test.each([
    ["{}", '"weight_map", an object that gives the file of each tensor, is missing'],
    ["[]", '"weight_map"'],
    ["null", '"weight_map"'],
    ['{"weight_map": ["a"]}', '"weight_map"'],
    ['{"weight_map": {"a": 1}}', 'tensor "a" has 1 where the name of a file should be'],
    ['{"weight_map"', "not valid JSON at line 1, column 14"],
    ['{"weight_map": {"a": "pytorch_model-1.bin"}}', "pytorch_model-1.bin: a PyTorch pickle"],
  ])("the index %s", async (text, message) => {
    expect((await failure(readCheckpoint(memoryStore({ [index]: text })))).message).toContain(message);
  });

  test("of 100,000 tensors", async () => {
    const shards = 20;
    const files: Record<string, Uint8Array> = {};
    const weightMap: Record<string, string> = {};
    for (let s = 0; s < shards; s++) {
      const names = Array.from(
        { length: 100_000 / shards },
        (_, i) => `model.layers.${s}.experts.${i}.weight`,
      );
      const file = `model-${s}.safetensors`;
      files[file] = serializeSafetensors(
        Object.fromEntries(
          names.map((n) => [n, { dtype: "uint8", shape: [1], data: new Uint8Array(1) } as const]),
        ),
      );
      for (const name of names) weightMap[name] = file;
    }
    const model = store(weightMap, files);
    const begin = performance.now();
    expect((await readCheckpoint(model)).tensors.size).toBe(100_000);
    // About 300 ms; quadratic work would take minutes.
    expect(performance.now() - begin).toBeLessThan(5000);
  });
});

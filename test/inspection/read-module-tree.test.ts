import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, onTestFinished, test } from "vitest";
import { blobStore, serializeSafetensors } from "../../src/checkpoint/index.ts";
import { directoryStore } from "../../src/checkpoint/node.ts";
import { isGraftError } from "../../src/errors.ts";
import { readModuleTree } from "../../src/inspection/index.ts";
import { knownModelTypes } from "../../src/inspection/known-types.ts";
import { causalModelTypes, imageTextModelTypes, seq2seqModelTypes } from "../../src/models/index.ts";
import { tensor } from "../../src/tensor/index.ts";
import { serveHub } from "../support/hub-server.ts";

const root = join(import.meta.dirname, "../..");
const tinyLlama = join(root, "models/tiny-llama");
const skeleton = join(root, "test/vectors/skeletons/bart-base.json.gz");

const zeros = (shape: number[]) =>
  tensor("float32", shape, new Float32Array(shape.reduce((a, b) => a * b, 1)));
const weights = (shapes: Record<string, number[]>) =>
  serializeSafetensors(
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, zeros(shape)])),
  );
const unknown = {
  "model.embed_tokens.weight": [50, 8],
  "model.layers.0.self_attn.q_proj.weight": [8, 8],
  "model.layers.1.self_attn.q_proj.weight": [8, 8],
};
const config = { model_type: "newfangled", architectures: ["NewfangledForCausalLM"], vocab_size: 50 };

async function directory(files: Record<string, Uint8Array | string | object>): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "graft-inspection-"));
  onTestFinished(() => rm(path, { recursive: true }));
  for (const [name, content] of Object.entries(files)) {
    const isText = typeof content === "string" || content instanceof Uint8Array;
    await writeFile(join(path, name), isText ? content : JSON.stringify(content));
  }
  return path;
}

async function failure(promise: Promise<unknown>) {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isGraftError(error)) throw new Error(`expected an error of Graft, got ${String(error)}`);
  return error;
}

test("the known types are those of the registry", () => {
  expect(knownModelTypes).toEqual({
    causal: causalModelTypes,
    seq2seq: seq2seqModelTypes,
    "image-text": imageTextModelTypes,
  });
});

describe("a model of a known type", () => {
  test("is built from config.json; directory, config.json and weights file are the same", async () => {
    const locations = [tinyLlama, join(tinyLlama, "config.json"), join(tinyLlama, "model.safetensors")];
    const all = await Promise.all(locations.map((location) => readModuleTree(location)));
    for (const { tree, source, warnings, weights: stored } of all) {
      expect([source, warnings, tree.modelType]).toEqual(["model", [], "llama"]);
      expect(tree.modules).toEqual(all[0]!.tree.modules);
      expect(stored).toMatchObject({ tensors: 56, files: 1, dtypes: { float32: { tensors: 56 } } });
    }
  });

  test("is an encoder-decoder, or reads pictures, in its own layout and in an older one", async () => {
    const vectors = join(root, "test/vectors");
    const bart = await readModuleTree(join(vectors, "seq2seq/bart-norms-and-head/model"));
    expect([bart.source, bart.warnings, bart.tree.className]).toEqual([
      "model",
      [],
      "BartForConditionalGeneration",
    ]);
    const folder = join(vectors, "florence2/florence2-four-stages");
    const [native, older] = await Promise.all(
      ["model", "older"].map((layout) => readModuleTree(join(folder, layout))),
    );
    expect([native!.source, native!.warnings]).toEqual(["model", []]);
    expect([older!.source, older!.warnings]).toEqual(["model", []]);
    const names = ({ tree }: typeof bart) => tree.modules.map(({ name, kind }) => [name, kind]);
    expect(names(older!)).toEqual(names(native!));
  });

  test("needs no weights, and looks at none if told so", async () => {
    const path = await directory({ "config.json": await readFile(join(tinyLlama, "config.json")) });
    const { source, weights: stored } = await readModuleTree(path);
    expect([source, stored]).toEqual(["model", undefined]);
    expect((await readModuleTree(tinyLlama, { skipWeights: true })).weights).toBeUndefined();
  });

  test("is compared with its weights", async () => {
    const path = await directory({
      "config.json": await readFile(join(tinyLlama, "config.json")),
      "model.safetensors": weights({ "model.embed_tokens.weight": [7, 8], "model.extra.weight": [2] }),
    });
    const { source, warnings } = await readModuleTree(path);
    expect(source).toBe("model");
    expect(warnings.map(({ code }) => code)).toEqual(["weights-do-not-fit", "unused-tensors"]);
    expect(warnings[0]!.message).toContain('"model.embed_tokens.weight" is [7, 8] instead of [2048, 128]');
    expect(warnings[0]!.message).not.toContain("lm_head"); // tied
    expect(warnings[1]!.message).toContain('"model.extra.weight"');
  });

  test("damaged weights are a warning; modules are known without them", async () => {
    const path = await directory({
      "config.json": await readFile(join(tinyLlama, "config.json")),
      "model.safetensors": "",
    });
    const { source, warnings } = await readModuleTree(path);
    expect([source, warnings[0]!.code]).toEqual(["model", "header-too-small"]);
  });

  test("asStored shows the file's tensors", async () => {
    const { tree, source } = await readModuleTree(tinyLlama, { asStored: true });
    expect(source).toBe("inferred");
    expect(tree.modules.find(({ name }) => name === "model.layers.5.mlp.down_proj")).toMatchObject({
      in: 384,
      out: 128,
    });
  });

  test("with a head that Graft does not build is inferred", async () => {
    const path = await directory({
      "config.json": { model_type: "llama", architectures: ["LlamaForSequenceClassification"] },
      "model.safetensors": weights({ ...unknown, "score.weight": [2, 8] }),
    });
    const { tree, source } = await readModuleTree(path);
    expect([source, tree.seqClsHeads, tree.className]).toEqual([
      "inferred",
      ["score"],
      "LlamaForSequenceClassification",
    ]);
  });
});

describe("a model of an unknown type", () => {
  test("is inferred from the headers, and a warning says so", async () => {
    const path = await directory({ "config.json": config, "model.safetensors": weights(unknown) });
    const { tree, source, warnings, weights: stored } = await readModuleTree(path);
    expect(source).toBe("inferred");
    expect(tree.modules.map(({ name }) => name)).toContain("model.layers.1.self_attn.q_proj");
    expect(warnings[0]).toMatchObject({ code: "inferred", details: { modelType: "newfangled" } });
    expect(warnings[0]!.message).toContain('no definition of model type "newfangled"');
    expect(stored).toMatchObject({ tensors: 3, bytes: 4 * (400 + 64 + 64) });
  });

  test.each([
    ["one file", "model.safetensors"],
    ["a file of any name", "other.safetensors"],
  ])("without config.json: %s", async (_, file) => {
    const path = await directory({ [file]: weights(unknown) });
    const { source, warnings } = await readModuleTree(join(path, file));
    expect(source).toBe("inferred");
    expect(warnings[0]!.message).toContain("there is no config.json");
  });

  test("shards and their index", async () => {
    const entries = Object.entries(unknown);
    const shard = (i: number) => `part-${i}.safetensors`;
    const path = await directory({
      ...Object.fromEntries(entries.map((entry, i) => [shard(i), weights(Object.fromEntries([entry]))])),
      "model.safetensors.index.json": {
        weight_map: Object.fromEntries(entries.map(([name], i) => [name, shard(i)])),
      },
    });
    for (const location of [path, join(path, "model.safetensors.index.json")])
      expect((await readModuleTree(location)).weights).toMatchObject({ tensors: 3, files: 3 });
  });

  test("without weights says why they are needed", async () => {
    const error = await failure(readModuleTree(await directory({ "config.json": config })));
    expect(error.code).toBe("no-weights");
    expect(error.message).toContain('does not build models of type "newfangled" itself');
  });
});

describe("skeletons", () => {
  test("packed and not, from a file and from a page", async () => {
    const packed = await readFile(skeleton);
    const json = { name: "x", modules: [["", "M", "module", null, null, []]] };
    const path = await directory({ "x.json": json, "x.json.gz": gzipSync(JSON.stringify(json)) });
    expect((await readModuleTree(skeleton)).tree.modules).toHaveLength(182);
    for (const file of ["x.json", "x.json.gz"])
      expect(await readModuleTree(join(path, file))).toMatchObject({
        source: "skeleton",
        tree: { name: "x" },
      });
    const dropped = blobStore(new Map([["bart.json.gz", new Blob([packed])]]));
    expect((await readModuleTree(dropped)).source).toBe("skeleton");
  });
});

describe("addresses and the Hub", () => {
  test("a directory, a file, config.json and a skeleton at an address", async () => {
    const files = {
      "config.json": new TextEncoder().encode(JSON.stringify(config)),
      "model.safetensors": weights(unknown),
      "bart.json.gz": new Uint8Array(await readFile(skeleton)),
    };
    const { endpoint } = await serveHub({ "org/name": files }, { lfs: /(?!)/ });
    const base = `${endpoint}/org/name/resolve/main`;
    for (const location of [base, `${base}/`, `${base}/config.json`, `${base}/model.safetensors`])
      expect(await readModuleTree(location), location).toMatchObject({
        source: "inferred",
        weights: { tensors: 3 },
      });
    expect((await readModuleTree(`${base}/bart.json.gz`)).source).toBe("skeleton");
  });

  test("org/name and hf://org/name@revision", async () => {
    const files = {
      "config.json": new TextEncoder().encode(JSON.stringify(config)),
      "model.safetensors": weights(unknown),
    };
    const hub = await serveHub({ "org/name": files });
    const before = { ...process.env };
    onTestFinished(() => {
      process.env = before;
    });
    Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: join(tmpdir(), "graft-no-such-home") });
    for (const location of ["org/name", "hf://org/name@v1"])
      expect(await readModuleTree(location)).toMatchObject({
        source: "inferred",
        tree: { modelType: "newfangled" },
      });
    // Everything of a small file; never more than the headers' first 100,000 bytes of a large one.
    expect(hub.sent.get("model.safetensors")).toBeLessThan(2 * 100_001);
  });
});

describe("bad input", () => {
  const index = (file: unknown) => ({ "model.safetensors.index.json": { weight_map: { "a.weight": file } } });

  test.each<[string, Record<string, Uint8Array | string | object>, string, RegExp, string?]>([
    ["an empty directory", {}, "missing-file", /there is no config\.json/],
    [
      "an adapter",
      { "adapter_config.json": { base_model_name_or_path: "org/base" } },
      "adapter",
      /base model.*"org\/base"/,
    ],
    [
      "an adapter's config",
      { "adapter_config.json": { peft_type: "LORA", base_model_name_or_path: "b" } },
      "adapter",
      /"b"/,
      "adapter_config.json",
    ],
    ["no JSON", { "config.json": "{" }, "invalid-json", /config\.json: not valid JSON/],
    ["a list", { "config.json": "[1]" }, "invalid-config", /expected a JSON object/],
    ["other JSON", { "x.json": { a: 1 } }, "not-a-model", /neither a skeleton/, "x.json"],
    ["a missing shard", index("model-1.safetensors"), "missing-shards", /model-1\.safetensors/],
    ["a shard outside", index("../x.safetensors"), "unsafe-file-name", /leaves the directory/],
    [
      "a shard that is the index",
      index("model.safetensors.index.json"),
      "json",
      /without the 8 bytes of header length/,
    ],
    ["a number for a shard", index(3), "invalid-index", /has 3 where the name of a file should be/],
    ["an empty file", { "model.safetensors": "" }, "header-too-small", /has 0 bytes/],
    [
      "a header that lies",
      { "model.safetensors": weights(unknown).slice(0, -4) },
      "incomplete-buffer",
      /missing/,
    ],
    ["a pickle", { "pytorch_model.bin": "PK\u0003\u0004" }, "pickle", /pickle/],
    [
      "a malformed skeleton",
      { "x.json": { modules: [["", 3]] } },
      "invalid-skeleton",
      /x\.json.*row 0/,
      "x.json",
    ],
  ])("%s", async (_, files, code, message, file = "") => {
    const error = await failure(readModuleTree(join(await directory(files), file)));
    expect(error.message).toMatch(message);
    expect(error.code).toBe(code);
  });

  test("a directory in the place of a file, and links that go round", async () => {
    const path = await directory({});
    await mkdir(join(path, "config.json"));
    expect((await failure(readModuleTree(path))).code).toBe("is-a-directory");
    await symlink(join(path, "b"), join(path, "a"));
    await symlink(join(path, "a"), join(path, "b"));
    expect((await failure(readModuleTree(join(path, "a")))).code).toBe("link-loop");
    await cp(skeleton, join(path, "s.json.gz"));
    expect(
      (await readModuleTree(directoryStore(path)).catch((error: unknown) => error)) as object,
    ).toHaveProperty("code");
  });

  test("enormous names", async () => {
    const name = `model.${"x".repeat(100_000)}.weight`;
    const path = await directory({ "model.safetensors": weights({ [name]: [2, 2] }) });
    expect((await readModuleTree(path)).tree.modules.at(-1)!.kind).toBe("linear");
  });

  test("an abort is passed on", async () => {
    await expect(readModuleTree(tinyLlama, { signal: AbortSignal.abort() })).rejects.toThrow(/abort/);
  });
});

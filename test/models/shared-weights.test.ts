import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  blobStore,
  openStore,
  readCheckpoint,
  readJson,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { CheckpointError } from "../../src/errors.ts";
import { AutoModelForSeq2SeqLM } from "../../src/models/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";

const directory = fileURLToPath(new URL("../vectors/seq2seq/bart-tied-gelu/model", import.meta.url));

/** The recorded checkpoint under other names; undefined leaves a tensor out. */
async function renamed(rename: (name: string) => string | undefined, added: Record<string, Tensor> = {}) {
  const store = await openStore(directory);
  const { tensors } = await readCheckpoint(await openStore(join(directory, "model.safetensors")));
  const entries = await Promise.all(
    [...tensors].flatMap(([name, entry]) => {
      const to = rename(name);
      return to === undefined ? [] : [readTensor(entry).then((value) => [to, value] as const)];
    }),
  );
  const files = new Map([
    ["config.json", new Blob([JSON.stringify(await readJson(store, "config.json"))])],
    ["model.safetensors", new Blob([serializeSafetensors({ ...Object.fromEntries(entries), ...added })])],
  ]);
  return blobStore(files, "renamed");
}

describe("a weight that several layers share", () => {
  test.each(["model.encoder.embed_tokens.weight", "lm_head.weight"])("is found as %s", async (name) => {
    const model = await AutoModelForSeq2SeqLM.fromPretrained(
      await renamed((old) => (old === "model.shared.weight" ? name : old)),
    );
    expect(model.origin.warnings).toEqual([]);
    const [, shared] = [...model.namedParameters()].find(([path]) => path === "model.shared.weight")!;
    expect(shared.storage?.name).toBe(name);
  });

  test("may be there under several names", async () => {
    const table = tensor("float32", [88, 32], new Float32Array(88 * 32));
    const store = await renamed((old) => old, { "lm_head.weight": table });
    const model = await AutoModelForSeq2SeqLM.fromPretrained(store);
    expect(model.origin.warnings).toEqual([]);
  });

  test("is named by its first name if it is missing", async () => {
    const loading = AutoModelForSeq2SeqLM.fromPretrained(
      await renamed((old) => (old === "model.shared.weight" ? undefined : old)),
    );
    await expect(loading).rejects.toThrow(CheckpointError);
    await expect(loading).rejects.toThrow(/tensor "model\.shared\.weight" is missing/);
  });
});

test("a checkpoint of the bare model, without the bias of the logits, is read", async () => {
  const store = await renamed((name) =>
    name === "final_logits_bias" ? undefined : name.replace(/^model\./, ""),
  );
  const model = await AutoModelForSeq2SeqLM.fromPretrained(store);
  expect(model.origin.warnings).toEqual([]);
  expect([...model.namedBuffers()].map(([path, { value }]) => [path, value])).toEqual([
    ["final_logits_bias", undefined],
  ]);
});

test("a bias of the logits of another size is refused", async () => {
  const bias = tensor("float32", [1, 3], new Float32Array(3));
  const loading = AutoModelForSeq2SeqLM.fromPretrained(
    await renamed((name) => (name === "final_logits_bias" ? undefined : name), { final_logits_bias: bias }),
  );
  await expect(loading).rejects.toThrow(/"final_logits_bias" has shape \[1, 3\], expected \[1, 88\]/);
});

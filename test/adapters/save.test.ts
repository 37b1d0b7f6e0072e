import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, PeftModel } from "../../src/adapters/index.ts";
import {
  blobStore,
  openStore,
  readCheckpoint,
  readTensor,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { fromFloat32, type Tensor, toFloat32 } from "../../src/tensor/index.ts";
import { everyCase, referenceCase, rejection, temporaryFolder } from "./support.ts";

const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

/** Tensors of a safetensors file, in its order. */
async function tensorsIn(file: string): Promise<Map<string, Tensor>> {
  const { tensors } = await readCheckpoint(await openStore(file));
  const read = [...tensors].map(async ([name, entry]) => [name, await readTensor(entry)] as const);
  return new Map(await Promise.all(read));
}

describe.each(everyCase().map((reference) => [reference.expected.name, reference] as const))(
  "%s",
  (_, reference) => {
    test("loading and saving gives PEFT's own bytes", async () => {
      for (const isTrainable of [true, false]) {
        const model = await reference.loadBase();
        const peft = await PeftModel.fromPretrained(model, reference.adapterPath, { isTrainable });
        const folder = join(await temporaryFolder(), "saved");
        await peft.savePretrained(folder);
        expect(readdirSync(folder).sort()).toEqual([CONFIG, WEIGHTS]);

        const [own, original] = [folder, reference.adapterPath].map((path) =>
          readFileSync(join(path, WEIGHTS)),
        );
        expect(own!.equals(original!)).toBe(true);
        // The recorded configuration does not say where its base model lay.
        const text = readFileSync(join(folder, CONFIG), "utf8");
        const anonymous = text.replace(JSON.stringify(reference.modelPath), "null");
        expect(anonymous).toBe(readFileSync(join(reference.adapterPath, CONFIG), "utf8").trimEnd());
      }
    });
  },
);

describe("saving", () => {
  const reference = referenceCase("llama-qv");
  const config = new LoraConfig({ r: 2, targetModules: ["q_proj"], taskType: "CAUSAL_LM" });
  const fresh = async (seed = 1) => getPeftModel(await reference.loadBase(), config, { seed });

  test("replaces an adapter that was there and leaves other files alone", async () => {
    const folder = await temporaryFolder();
    cpSync(reference.adapterPath, folder, { recursive: true });
    writeFileSync(join(folder, "README.md"), "mine");
    const peft = await fresh();
    await peft.savePretrained(folder);
    expect(readdirSync(folder).sort()).toEqual(["README.md", CONFIG, WEIGHTS]);
    const loaded = await PeftModel.fromPretrained(await reference.loadBase(), folder);
    expect(loaded.peftConfig.r).toBe(2);
    expect([...loaded.stateDict().keys()].sort()).toEqual([...peft.stateDict().keys()].sort());
  });

  test("into the folder that it was loaded from", async () => {
    // Base weights that are saved along are read from the very file that is replaced.
    const embedding = referenceCase("llama-embedding-lora");
    const folder = await temporaryFolder();
    cpSync(embedding.adapterPath, folder, { recursive: true });
    const peft = await PeftModel.fromPretrained(await embedding.loadBase(), folder, { isTrainable: true });
    const before = readFileSync(join(folder, WEIGHTS));
    await peft.savePretrained(folder);
    expect(readFileSync(join(folder, WEIGHTS)).equals(before)).toBe(true);
  });

  test("keeps members of the configuration that PEFT 0.21 does not know", async () => {
    const folder = await temporaryFolder();
    cpSync(reference.adapterPath, folder, { recursive: true });
    const file = join(folder, CONFIG);
    const stored = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    const extra = { use_next_thing: true, next_config: { depth: 3, names: ["a", null] } };
    writeFileSync(file, JSON.stringify({ ...stored, ...extra }));
    const peft = await PeftModel.fromPretrained(await reference.loadBase(), folder);
    expect(peft.peftConfig.warnings.map(({ code }) => code)).toEqual([
      "unknown-config-key",
      "unknown-config-key",
    ]);
    await peft.savePretrained(join(folder, "again"));
    const saved = JSON.parse(readFileSync(join(folder, "again", CONFIG), "utf8")) as Record<string, unknown>;
    expect(saved).toMatchObject(extra);
  });

  test("is for inference, and names the base model", async () => {
    const folder = await temporaryFolder();
    await (await fresh()).savePretrained(folder);
    const saved = JSON.parse(readFileSync(join(folder, CONFIG), "utf8")) as Record<string, unknown>;
    expect(saved).toMatchObject({
      inference_mode: true,
      base_model_name_or_path: reference.modelPath,
      task_type: "CAUSAL_LM",
      peft_type: "LORA",
      target_modules: ["q_proj"],
    });
  });

  test("that fails leaves what was there", async () => {
    const folder = await temporaryFolder();
    cpSync(reference.adapterPath, folder, { recursive: true });
    const before = readFileSync(join(folder, WEIGHTS));
    writeFileSync(join(folder, "file"), "");
    const error = await rejection((await fresh()).savePretrained(join(folder, "file", "adapter")));
    expect(error.name).toBe("CheckpointError");
    expect(error.message).toContain(join(folder, "file"));
    expect(readdirSync(folder).sort()).toEqual([CONFIG, WEIGHTS, "file"]);
    expect(readFileSync(join(folder, WEIGHTS)).equals(before)).toBe(true);
  });
});

describe("loading", () => {
  const reference = referenceCase("llama-qv"); // r 4 of q_proj and v_proj
  const key = (layer: number, part: string) =>
    `base_model.model.model.layers.${layer}.self_attn.${part}.weight`;

  /** The recorded adapter as files in memory, with changes. */
  async function files(
    change: (tensors: Map<string, Tensor>) => void = () => undefined,
    config: Record<string, unknown> = {},
  ): Promise<Map<string, Blob>> {
    const tensors = await tensorsIn(join(reference.adapterPath, WEIGHTS));
    change(tensors);
    const stored = JSON.parse(readFileSync(join(reference.adapterPath, CONFIG), "utf8")) as object;
    return new Map([
      [WEIGHTS, new Blob([serializeSafetensors(tensors, { format: "pt" }) as Uint8Array<ArrayBuffer>])],
      [CONFIG, new Blob([JSON.stringify({ ...stored, ...config })])],
    ]);
  }
  const load = async (contents: Map<string, Blob>, isTrainable = true) =>
    PeftModel.fromPretrained(await reference.loadBase(), blobStore(contents, "my-adapter"), { isTrainable });

  /** The error of a load, after which the model must be as it was. */
  async function refusal(contents: Map<string, Blob>) {
    const model = await reference.loadBase();
    const describeModel = () =>
      [...model.namedParameters()].map(([path, { name, trainable, storage, data }]) => [
        path,
        name,
        trainable,
        storage,
        data,
      ]);
    const before = describeModel();
    const error = await rejection(PeftModel.fromPretrained(model, blobStore(contents, "my-adapter")));
    expect(describeModel()).toEqual(before);
    getPeftModel(model, new LoraConfig({ targetModules: ["q_proj"] })); // another one can be put in
    return error;
  }

  test("lists everything that does not fit, and changes nothing", async () => {
    const error = await refusal(
      await files((tensors) => {
        tensors.delete(key(0, "q_proj.lora_A"));
        tensors.set(key(0, "q_proj.lora_X"), { dtype: "float32", shape: [1], data: new Float32Array(1) });
        tensors.set(key(1, "v_proj.lora_B"), {
          dtype: "float32",
          shape: [32, 3],
          data: new Float32Array(96),
        });
        tensors.set(key(1, "v_proj.lora_A"), {
          dtype: "int64",
          shape: [4, 32],
          data: new BigInt64Array(128),
        });
      }),
    );
    expect(error).toMatchObject({ name: "AdapterError", code: "adapter-does-not-fit" });
    expect((error.details["problems"] as string[]).toSorted()).toEqual([
      `"${key(0, "q_proj.lora_A")}" is missing (closest: "${key(0, "q_proj.lora_X")}")`,
      `"${key(0, "q_proj.lora_X")}" is not part of the adapted model (closest: "${key(0, "q_proj.lora_A")}")`,
      `"${key(1, "v_proj.lora_A")}" is stored as int64; float32, float16, bfloat16 are supported`,
      `"${key(1, "v_proj.lora_B")}" has shape [32, 3], expected [32, 4]`,
    ]);
    expect(error.message).toMatch(
      /^adapter_model\.safetensors does not fit .*\(llama\): .*Was the adapter trained/,
    );
  });

  test("a rank that is not the configuration's: every tensor is named, up to eight", async () => {
    const error = await refusal(await files(undefined, { r: 5 }));
    expect(error.details["problems"]).toHaveLength(8);
    expect(error.message).toContain("has shape [4, 32], expected [5, 32]");
    const more = await refusal(
      await files(undefined, { target_modules: ["q_proj", "v_proj", "k_proj"], r: 5 }),
    );
    expect(more.details["problems"]).toHaveLength(12);
    expect(more.message).toContain("; and 4 more");
  });

  test("an adapter of biases that fails leaves them frozen", async () => {
    const biases = referenceCase("llama-biases-linear-rope");
    const model = await biases.loadBase();
    const tensors = await tensorsIn(join(biases.adapterPath, WEIGHTS));
    tensors.delete(
      [...tensors.keys()].find((name) => name.endsWith("o_proj.base_layer.bias") || name.endsWith(".bias"))!,
    );
    const contents = new Map([
      [WEIGHTS, new Blob([serializeSafetensors(tensors) as Uint8Array<ArrayBuffer>])],
      [CONFIG, new Blob([readFileSync(join(biases.adapterPath, CONFIG))])],
    ]);
    const error = await rejection(PeftModel.fromPretrained(model, blobStore(contents, "my-adapter")));
    expect(error.message).toMatch(/bias" is missing/);
    for (const [path, { name, trainable }] of model.namedParameters())
      expect({ name, trainable }).toEqual({ name: path, trainable: false });
  });

  test.each(["float16", "bfloat16", "float64"] as const)("tensors stored as %s", async (dtype) => {
    const rounded = new Map<string, Float32Array>();
    const contents = await files((tensors) => {
      for (const [name, tensor] of tensors) {
        const stored = fromFloat32(toFloat32(tensor), dtype);
        tensors.set(name, stored);
        rounded.set(name, toFloat32(stored).data);
      }
    });
    const peft = await load(contents);
    expect(peft.trainableParameters().size).toBe(8);
    for (const [name, { data }] of peft.trainableParameters()) expect(data!.data).toEqual(rounded.get(name));
    // It is trained, and saved, in float32.
    const folder = await temporaryFolder();
    await peft.savePretrained(folder);
    for (const { dtype } of (await tensorsIn(join(folder, WEIGHTS))).values()) expect(dtype).toBe("float32");
  });

  test("a pickle is refused with what to do", async () => {
    const contents = await files();
    contents.set("adapter_model.bin", new Blob([Buffer.from("PK\x03\x04")]));
    await load(contents); // the safetensors beside it is read
    contents.delete(WEIGHTS);
    const error = await refusal(contents);
    expect(error).toMatchObject({ name: "CheckpointError", code: "pickle" });
    expect(error.message).toMatch(/^my-adapter\/adapter_model\.bin: this is a PyTorch pickle/);
    expect(error.message).toContain(
      'save_file(torch.load("adapter_model.bin", weights_only=True, map_location="cpu"), "adapter_model.safetensors")',
    );
  });

  test("missing files are named", async () => {
    const contents = await files();
    contents.delete(WEIGHTS);
    expect((await refusal(contents)).message).toBe(
      "my-adapter: there is no adapter_model.safetensors beside adapter_config.json. Is the adapter's folder complete?",
    );
    const empty = await temporaryFolder();
    mkdirSync(join(empty, "model"));
    const error = await rejection(PeftModel.fromPretrained(await reference.loadBase(), empty));
    expect(error.name).toBe("CheckpointError");
    expect(error.message).toContain(CONFIG);
    const truncated = await files();
    truncated.set(WEIGHTS, truncated.get(WEIGHTS)!.slice(0, 2000));
    expect(await refusal(truncated)).toMatchObject({ name: "CheckpointError" });
  });

  test("an adapter of another method or model", async () => {
    const other = await files(undefined, { peft_type: "IA3" });
    expect(await refusal(other)).toMatchObject({ name: "AdapterError", code: "not-lora" });
    const wrong = PeftModel.fromPretrained(
      await referenceCase("qwen3-head-dim").loadBase(),
      reference.adapterPath,
    );
    expect((await rejection(wrong)).code).toBe("adapter-does-not-fit");
  });
});

/** With PEFT at hand: the pickle's remedy does what it says. */
const python = process.env["GRAFT_PYTHON"];
test.skipIf(!python)("the remedy for a pickle works (needs GRAFT_PYTHON)", async () => {
  const reference = referenceCase("llama-qv");
  const folder = await temporaryFolder();
  cpSync(reference.adapterPath, folder, { recursive: true });
  const run = (code: string) => execFileSync(python!, ["-c", code], { cwd: folder });
  run(
    `import torch, os; from safetensors.torch import load_file; torch.save(load_file("${WEIGHTS}"), "adapter_model.bin"); os.remove("${WEIGHTS}")`,
  );
  const error = await rejection(PeftModel.fromPretrained(await reference.loadBase(), folder));
  run(
    error.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim())
      .join("\n"),
  );
  const loaded = await PeftModel.fromPretrained(await reference.loadBase(), folder, { isTrainable: true });
  expect(loaded.trainableParameters().size).toBe(8);
});

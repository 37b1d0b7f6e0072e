import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  getPeftModel,
  LoraConfig,
  olderTree,
  PeftModel,
  toNativeConfig,
  toOlderConfig,
} from "../../src/adapters/index.ts";
import { openStore, readCheckpoint, readTensor } from "../../src/checkpoint/index.ts";
import { selectTargets } from "../../src/selection/index.ts";
import { florence2Cases } from "../models/florence2-case.ts";
import {
  nativeTree,
  olderModel,
  olderVectors,
  type RecordedSelection,
  recordedSelections,
  recordedTree,
  savedAdapters,
  zeroModel,
} from "./older-case.ts";
import { rejection, temporaryFolder } from "./support.ts";

const { tree, layout } = nativeTree();
const older = olderTree(tree, layout);

describe("the module tree of the older class", () => {
  const recorded = recordedTree();

  test("has PyTorch's modules, in its order, with their classes, kinds and shapes", () => {
    const known = ({
      name,
      className,
      kind,
      in: inputs,
      out,
      parameters,
    }: (typeof older.modules)[number]) => ({
      ...{ name, className, kind, in: inputs, out, parameters },
    });
    expect(older.modules.map(known)).toEqual(recorded.modules.map(known));
  });

  test("saves the same tensors, and shares the same", () => {
    expect(older.stateDict).toEqual(recorded.stateDict!.map(([name, shape]) => [name, shape]));
    expect(older.tiedWeights).toEqual(recorded.tiedWeights);
    expect([...older.duplicateModules].sort()).toEqual([...recorded.duplicateModules].sort());
    expect([...older.tiedWithEmbedding].sort()).toEqual([...recorded.tiedWithEmbedding].sort());
    expect(older.numParameters).toBe(recorded.numParameters);
    expect(older.inputEmbeddings).toBe(recorded.inputEmbeddings);
    expect(older.outputEmbeddings).toBe(recorded.outputEmbeddings);
  });
});

describe.each(recordedSelections().map((row) => [row.name, row] as const))("%s", (_, recorded) => {
  const config = LoraConfig.fromJSON({ peft_type: "LORA", ...recorded.config });

  test("selects what PEFT selects on the older class", () => {
    if (recorded.error !== undefined) {
      expect(() => selectTargets(older, config.toSelection())).toThrow(
        expect.objectContaining({
          details: expect.objectContaining({ pythonType: recorded.error }) as unknown,
        }),
      );
      return;
    }
    const selection = selectTargets(older, config.toSelection());
    expect(selection.targets.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling }))).toEqual(
      recorded.targets,
    );
    expect(selection.modulesToSave).toEqual(recorded.modulesToSave);
    expect(selection.stateDict).toEqual(recorded.stateDict);
    expect(selection.trainableParameters).toBe(recorded.trainableParameters);
    expect(selection.totalParameters).toBe(recorded.totalParameters);
  });

  test.skipIf(recorded.error !== undefined)("means the same under the native names, and back", () => {
    const native = toNativeConfig(config, tree, layout);
    const named = ({ name, r, alpha, scaling }: (typeof recorded.targets)[number]) => [
      name,
      { r, alpha, scaling },
    ];
    const values = (targets: typeof recorded.targets, rename: (name: string) => string | undefined) =>
      Object.fromEntries(targets.map((target) => named({ ...target, name: rename(target.name)! })));
    const selected = selectTargets(tree, native.config.toSelection());
    expect(values(selected.targets, (name) => name)).toEqual(values(recorded.targets, layout.toNative));
    expect([...selected.modulesToSave].sort()).toEqual(
      recorded.modulesToSave.map((name) => layout.toNative(name)).sort(),
    );

    const back = toOlderConfig(native.config, tree, layout);
    const again = selectTargets(older, back.config.toSelection());
    expect(again.targets.map(({ name, r, alpha, scaling }) => ({ name, r, alpha, scaling }))).toEqual(
      recorded.targets,
    );
    expect(again.modulesToSave).toEqual(recorded.modulesToSave);
  });
});

const adapterOf = (name: string): string => join(olderVectors, "adapters", name);
const CONFIG = "adapter_config.json";
const WEIGHTS = "adapter_model.safetensors";
const tensorsOf = async (folder: string) =>
  (await readCheckpoint(await openStore(join(folder, WEIGHTS)))).tensors;

describe.each(savedAdapters().map((name) => [name]))("PEFT's adapter %s of the older class", (name) => {
  test("is loaded into the native model with its values", async () => {
    const peft = await PeftModel.fromPretrained(olderModel(), adapterOf(name), { isTrainable: true });
    expect(peft.naming).toBe("remote-code");
    const state = peft.stateDict();
    const trained = peft.trainableParameters();
    let compared = 0;
    for (const [key, entry] of await tensorsOf(adapterOf(name))) {
      const path = key.replace("base_model.model.", "");
      if (path === "language_model.final_logits_bias") continue;
      const native = `base_model.model.${layout.toNative(path)}`;
      const tensor = state.get(native) ?? trained.get(native)?.data;
      if (tensor === undefined) expect(path, name).toMatch(/base_layer|\.modules_to_save\./);
      else {
        const { data, shape } = "source" in tensor ? await readTensor(tensor) : tensor;
        expect(shape, key).toEqual(entry.shape);
        expect(
          Buffer.from(data.buffer, data.byteOffset, data.byteLength).equals(
            Buffer.from((await readTensor(entry)).data.buffer),
          ),
          key,
        ).toBe(true);
        compared++;
      }
    }
    expect(compared).toBeGreaterThanOrEqual(trained.size);
  });

  test("is saved again under the older names as PEFT saved it, byte for byte", async () => {
    const peft = await PeftModel.fromPretrained(olderModel("there"), adapterOf(name));
    const folder = join(await temporaryFolder(), "saved");
    await peft.savePretrained(folder, { naming: "remote-code" });
    const [own, original] = [folder, adapterOf(name)].map((path) => readFileSync(join(path, WEIGHTS)));
    expect(own!.equals(original!)).toBe(true);
    const text = readFileSync(join(folder, CONFIG), "utf8").replace('"there"', "null");
    expect(text).toBe(readFileSync(join(adapterOf(name), CONFIG), "utf8").trimEnd());
  });

  test("saved natively and loaded again, it is the same under the older names", async () => {
    const peft = await PeftModel.fromPretrained(zeroModel(), adapterOf(name));
    const folder = await temporaryFolder();
    await peft.savePretrained(join(folder, "native"));
    const again = await PeftModel.fromPretrained(zeroModel(), join(folder, "native"));
    expect(again.naming).toBe("native");
    const { tensors, config } = again.renamed("remote-code");
    const original = await tensorsOf(adapterOf(name));
    const ours = [...tensors.keys()].filter((key) => original.has(key));
    // What else PEFT saves depends on how the configuration names an embedding.
    expect([...original.keys()].filter((key) => !tensors.has(key) && !/base_layer/.test(key))).toEqual([]);
    for (const key of ours) {
      const tensor = tensors.get(key)!;
      const { data } = "source" in tensor ? await readTensor(tensor) : tensor;
      expect([...data], key).toEqual([...(await readTensor(original.get(key)!)).data]);
    }
    expect(config.autoMapping).toBeNull();
  });
});

test("what has no older name is listed, with the reason", async () => {
  const config = new LoraConfig({ targetModules: ["image_projection", "q_proj"] });
  const peft = getPeftModel(olderModel(), config);
  const error = await rejection(peft.savePretrained(await temporaryFolder(), { naming: "remote-code" }));
  expect(error).toMatchObject({ code: "no-older-name" });
  expect(error.message).toMatch(
    /image_projection" \(it is a bare parameter there, image_projection, and no layer\)/,
  );
  const saved = getPeftModel(
    olderModel(),
    new LoraConfig({ targetModules: ["qkv"], modulesToSave: ["image_projection"] }),
  );
  expect(() => saved.renamed("remote-code")).toThrow(/image_projection/);
});

test("an unknown naming is refused with those that there are", () => {
  const peft = getPeftModel(olderModel(), new LoraConfig({ targetModules: ["q_proj"] }));
  expect(() => peft.renamed("remotecode")).toThrow(/no names called "remotecode".*"remote-code"/);
});

describe("adapters whose names do not belong together", () => {
  const changed = async (change: (key: string, index: number) => string) => {
    const { blobStore, serializeSafetensors } = await import("../../src/checkpoint/index.ts");
    const tensors = new Map<string, Awaited<ReturnType<typeof readTensor>>>();
    let index = 0;
    for (const [key, entry] of await tensorsOf(adapterOf("qv")))
      tensors.set(change(key, index++), await readTensor(entry));
    const blob = (bytes: Uint8Array): Blob => new Blob([bytes as Uint8Array<ArrayBuffer>]);
    return blobStore(
      new Map([
        [CONFIG, blob(readFileSync(join(adapterOf("qv"), CONFIG)))],
        [WEIGHTS, blob(serializeSafetensors(tensors))],
      ]),
    );
  };
  const nativeKey = (key: string): string => key.replace("language_model.model", "model.language_model");

  test("names of both layouts", async () => {
    const model = olderModel();
    const store = await changed((key, index) => (index === 0 ? nativeKey(key) : key));
    const error = await rejection(PeftModel.fromPretrained(model, store));
    expect(error).toMatchObject({ code: "mixed-names" });
    expect([...model.namedParameters()].some(([path]) => path.includes("lora_"))).toBe(false);
  });

  test("names of neither", async () => {
    const store = await changed((key, index) =>
      index === 0 ? key.replace("language_model", "speech_model") : key,
    );
    expect(await rejection(PeftModel.fromPretrained(olderModel(), store))).toMatchObject({
      code: "adapter-does-not-fit",
      message: expect.stringMatching(/neither layout.*speech_model/) as unknown,
    });
  });

  test("a parameter of the older class that is another tensor here", async () => {
    const store = await changed((key, index) => (index === 0 ? "base_model.model.image_projection" : key));
    expect(await rejection(PeftModel.fromPretrained(olderModel(), store))).toMatchObject({
      code: "adapter-does-not-fit",
    });
  });

  test("native names are loaded as such", async () => {
    const peft = await PeftModel.fromPretrained(olderModel(), await changed(nativeKey));
    expect(peft.naming).toBe("native");
  });
});

test("options that name no modules are refused", () => {
  const config = new LoraConfig({ targetModules: ["q_proj"], targetParameters: ["image_projection"] });
  expect(() => toOlderConfig(config, tree, layout)).toThrow(/targetParameters cannot be brought/);
});

const valuesOf = ({ name, r, alpha, scaling }: RecordedSelection["targets"][number]) => ({
  name,
  r,
  alpha,
  scaling,
});

test("any lists, layers and ranks mean the same there and back", () => {
  const leaves = [
    "q_proj",
    "v_proj",
    "out_proj",
    "fc1",
    "qkv",
    "proj",
    "window_attn.proj",
    "encoder.layers.1.fc2",
  ];
  const config = fc.record({
    targetModules: fc.uniqueArray(fc.constantFrom(...leaves), { minLength: 1, maxLength: 4 }),
    excludeModules: fc.option(
      fc.uniqueArray(fc.constantFrom("decoder.layers.0.fc1", "channel_attn.qkv"), { minLength: 1 }),
    ),
    layersToTransform: fc.option(fc.uniqueArray(fc.integer({ min: 0, max: 2 }), { minLength: 1 })),
    r: fc.integer({ min: 1, max: 9 }),
    rankPattern: fc.dictionary(
      fc.constantFrom("q_proj", "fc1", "spatial_block.*qkv"),
      fc.integer({ min: 1, max: 9 }),
    ),
    alphaPattern: fc.dictionary(fc.constantFrom("v_proj", ".*decoder.*"), fc.integer({ min: 1, max: 30 })),
  });
  fc.assert(
    fc.property(config, (options) => {
      const given = new LoraConfig(options);
      let wanted: ReturnType<typeof selectTargets>["targets"] = [];
      try {
        wanted = selectTargets(tree, given.toSelection()).targets;
      } catch {
        fc.pre(false); // nothing is selected
      }
      const there = toOlderConfig(given, tree, layout);
      expect(there.selection.targets.map(({ name, r, alpha }) => [layout.toNative(name), r, alpha])).toEqual(
        wanted.map(({ name, r, alpha }) => [name, r, alpha]),
      );
      const back = toNativeConfig(there.config, tree, layout);
      expect(back.selection.targets.map(valuesOf)).toEqual(wanted.map(valuesOf));
    }),
    { numRuns: 40 },
  );
});

test.each([["florence2-odd-picture"], ["florence2-one-place"], ["florence2-convolutions"]])(
  "the adapter of %s, saved under the older names, is the same when it is loaded",
  async (name) => {
    const reference = florence2Cases().find(({ expected }) => expected.name === name)!;
    const peft = await reference.loadAdapted();
    const folder = join(await temporaryFolder(), "older");
    await peft.savePretrained(folder, { naming: "remote-code" });
    const keys = [...(await tensorsOf(folder)).keys()];
    expect(
      keys.filter((key) => /\.(?:model\.vision_tower|model\.language_model|multi_modal)/.test(key.slice(16))),
    ).toEqual([]);
    const again = await PeftModel.fromPretrained(await reference.loadBase(), folder, { isTrainable: true });
    expect(again.naming).toBe("remote-code");
    expect(again.stateDict()).toEqual(peft.stateDict());
    expect(again.selection.targets.map(valuesOf)).toEqual(peft.selection.targets.map(valuesOf));
  },
);

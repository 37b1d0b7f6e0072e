import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { getPeftModel, LoraConfig, PeftModel } from "../../src/adapters/index.ts";
import { parametersByKey } from "../../src/adapters/inject.ts";
import {
  blobStore,
  openStore,
  readCheckpoint,
  readTensorAsFloat32,
  serializeSafetensors,
} from "../../src/checkpoint/index.ts";
import { type Tensor, tensor } from "../../src/tensor/index.ts";
import { AdamW } from "../../src/training/optimizers.ts";
import { TrainingStep } from "../../src/training/step.ts";
import { relativeL2 } from "../support/close.ts";
import { logitsOf } from "../support/parity.ts";
import { batchOf, type Expected } from "../support/reference-case.ts";
import { sharedEngine } from "../support/run-graph.ts";
import { referenceCase, temporaryFolder } from "./support.ts";

/** What scripts/record_adapters.py writes into cases.json. */
type Case = {
  name: string;
  base: string;
  settings: Record<string, unknown>;
  printed: string;
  /** If it is not the base model's. */
  batch?: Expected["batch"];
  loss?: number;
  trainableKeys?: string[];
  adapterKeys?: string[];
  conflict?: { given: Record<string, number>; loaded: Record<string, number> };
};
const folder = fileURLToPath(new URL("../vectors/adapters", import.meta.url));
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) as Case[];
const engine = sharedEngine({ threads: 1 });

const fresh = async ({ base, settings }: Case) =>
  getPeftModel(await referenceCase(base).loadBase(), LoraConfig.fromJSON({ ...settings, peft_type: "LORA" }));
const load = async ({ name, base }: Case, isTrainable = true) =>
  PeftModel.fromPretrained(await referenceCase(base).loadBase(), join(folder, name, "adapter"), {
    isTrainable,
  });

test.each(cases.map((recorded) => [recorded.name, recorded] as const))(
  "%s: prints PEFT's line",
  async (_, recorded) => {
    const lines: string[] = [];
    (await fresh(recorded)).printTrainableParameters((line) => lines.push(line));
    expect(lines).toEqual([recorded.printed]);
  },
);

describe.each(
  cases.filter(({ loss }) => loss !== undefined).map((recorded) => [recorded.name, recorded] as const),
)("%s", (_, recorded) => {
  test("loss and every gradient are PEFT's", async () => {
    const reference = referenceCase(recorded.base);
    const peft = await load(recorded);
    const step = new TrainingStep(peft.baseModel, engine());
    const lossScale = 1 / reference.expected.batchLabelTokens;
    const batch = recorded.batch ? batchOf(recorded.batch) : reference.batch();
    const { loss, gradients } = await step.run(batch, { lossScale, seed: 0 });
    await step.dispose();
    expect(Math.abs(loss / recorded.loss! - 1)).toBeLessThan(1e-5);
    expect([...gradients.keys()].sort()).toEqual(recorded.trainableKeys!.toSorted());
    const { tensors } = await readCheckpoint(
      await openStore(join(folder, recorded.name, "expected.safetensors")),
    );
    for (const [key, gradient] of gradients)
      expect(
        relativeL2(gradient, (await readTensorAsFloat32(tensors.get(`grad.${key}`)!)).data),
        key,
      ).toBeLessThan(1e-4);
  });

  test("selects PEFT's keys", async () => {
    const peft = await fresh(recorded);
    expect([...peft.stateDict().keys()].sort()).toEqual(recorded.adapterKeys);
    expect([...peft.trainableParameters().keys()].sort()).toEqual(recorded.trainableKeys!.toSorted());
  });

  test("loading and saving gives PEFT's own bytes", async () => {
    const saved = join(await temporaryFolder(), "saved");
    await (await load(recorded)).savePretrained(saved);
    const [own, original] = [saved, join(folder, recorded.name, "adapter")].map((path) => ({
      weights: readFileSync(join(path, "adapter_model.safetensors")),
      config: readFileSync(join(path, "adapter_config.json"), "utf8"),
    }));
    expect(own!.weights.equals(original!.weights)).toBe(true);
    // The recorded configuration does not say where its base model lay.
    const anonymous = own!.config.replace(JSON.stringify(referenceCase(recorded.base).modelPath), "null");
    expect(anonymous).toBe(original!.config.trimEnd());
  });

  test("trains, saves and loads: the model is the same afterwards, frozen or not", async () => {
    const reference = referenceCase(recorded.base);
    const batch = reference.batch();
    const peft = await load(recorded);
    const before = await logitsOf(peft.baseModel, engine(), batch);
    await peft.materialize();
    const parameters = new Map([...peft.trainableParameters()].map(([key, { data }]) => [key, data!]));
    const optimizer = new AdamW(parameters, { learningRate: 0.01 });
    const step = new TrainingStep(peft.baseModel, engine());
    const { gradients } = await step.run(batch, { lossScale: 1, seed: 0 });
    await step.dispose();
    const shaped = [...gradients].map(
      ([key, data]) => [key, tensor("float32", parameters.get(key)!.shape, data)] as const,
    );
    optimizer.step(new Map(shaped));
    const trained = await logitsOf(peft.baseModel, engine(), batch);
    expect(relativeL2(trained, before)).toBeGreaterThan(1e-3);

    const saved = join(await temporaryFolder(), "saved");
    await peft.savePretrained(saved);
    const { tensors } = await readCheckpoint(await openStore(join(saved, "adapter_model.safetensors")));
    expect([...tensors.keys()].sort()).toEqual(recorded.adapterKeys);
    for (const isTrainable of [true, false]) {
      const again = await PeftModel.fromPretrained(await reference.loadBase(), saved, { isTrainable });
      expect(again.trainableParameters().size).toBe(isTrainable ? recorded.trainableKeys!.length : 0);
      expect(relativeL2(await logitsOf(again.baseModel, engine(), batch), trained)).toBe(0);
      // The original stays as it was: what is saved along is a copy.
      const plain = await logitsOf(await reference.loadBase(), engine(), batch);
      expect(relativeL2(plain, trained)).toBeGreaterThan(1e-3);
    }
  });
});

test.each(
  cases.flatMap(({ conflict, ...recorded }) =>
    conflict ? [[recorded.name, { ...recorded, conflict }] as const] : [],
  ),
)("%s: of several saved copies of a weight, the one that PEFT takes counts", async (_, recorded) => {
  const { given, loaded } = recorded.conflict;
  const path = join(folder, recorded.name, "adapter");
  const { tensors } = await readCheckpoint(await openStore(join(path, "adapter_model.safetensors")));
  const edited = new Map<string, Tensor>();
  for (const [key, entry] of tensors) {
    const { shape, data } = await readTensorAsFloat32(entry);
    edited.set(key, tensor("float32", shape, key in given ? data.map(() => given[key]!) : data));
  }
  const contents = new Map([
    ["adapter_model.safetensors", new Blob([serializeSafetensors(edited) as Uint8Array<ArrayBuffer>])],
    ["adapter_config.json", new Blob([readFileSync(join(path, "adapter_config.json"))])],
  ]);
  const base = await referenceCase(recorded.base).loadBase();
  const parameters = parametersByKey(
    (await PeftModel.fromPretrained(base, blobStore(contents, "edited"))).baseModel,
  );
  const values: Record<string, number[]> = {};
  for (const key of Object.keys(loaded))
    values[key] = [...new Set((await parameters.get(key)!.materialize()).data)];
  expect(values).toEqual(Object.fromEntries(Object.entries(loaded).map(([key, value]) => [key, [value]])));
});

test("an adapter made for inference is not trained", async () => {
  const peft = await fresh(cases.find(({ name }) => name === "inference")!);
  expect(peft.trainableParameters().size).toBe(0);
  const reference = referenceCase("llama-qv");
  expect(await logitsOf(peft.baseModel, engine(), reference.batch())).toEqual(
    await logitsOf(await reference.loadBase(), engine(), reference.batch()),
  );
});

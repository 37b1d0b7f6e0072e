import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { PeftModel } from "../../src/adapters/index.ts";
import {
  openStore,
  readCheckpoint,
  readTensorAsFloat32,
  type TensorEntry,
} from "../../src/checkpoint/index.ts";
import { gradients, type Value } from "../../src/graph/index.ts";
import type { Conv2dOptions } from "../../src/nn/index.ts";
import type { Engine, Feeds } from "../../src/runtime/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate } from "../support/run-graph.ts";
import { temporaryFolder } from "./support.ts";

type Settings = Record<string, unknown>;
type Recorded = {
  name: string;
  settings: Settings;
  printed: string;
  trainableKeys: string[];
  adapterKeys: string[];
};
export type ConvolutionOptions = {
  in: number;
  out: number;
  kernel_size: Conv2dOptions["kernelSize"];
  stride?: NonNullable<Conv2dOptions["stride"]>;
  padding?: NonNullable<Conv2dOptions["padding"]>;
  dilation?: NonNullable<Conv2dOptions["dilation"]>;
  groups?: number;
  bias?: boolean;
};
export type BartCase = Recorded & { base: string; loss: number; decoderInputIds: number[][] };
export type ConvolutionCase = Recorded & {
  layers: ConvolutionOptions[];
  rows: unknown[];
  warnings: string[];
};
export type Refused = {
  base?: string;
  layers?: ConvolutionOptions[];
  size?: [number, number];
  settings: Settings;
  stage: "inject" | "forward";
  type: string;
  message: string;
};

const folder = fileURLToPath(new URL("../vectors/adapters/layers", import.meta.url));

/** What scripts/record_adapter_layers.py writes into cases.json; see there. */
export const layerCases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) as {
  bart: BartCase[];
  convolution: ConvolutionCase[];
  refused: Refused[];
};

export const adapterPath = ({ name }: { name: string }): string => join(folder, name, "adapter");

/** What PEFT computed. */
export async function recordedTensors({ name }: { name: string }): Promise<ReadonlyMap<string, TensorEntry>> {
  return (await readCheckpoint(await openStore(join(folder, name, "expected.safetensors")))).tensors;
}

/** Compares the values of `output` and the gradients of `loss` with the recorded ones. */
export async function expectRecorded(
  peft: PeftModel,
  recorded: Recorded,
  { output, loss }: { output: Value; loss: Value },
  engine: Engine,
  feeds: Feeds,
): Promise<{ loss: number }> {
  const tensors = await recordedTensors(recorded);
  const valuesOf = async (name: string) => (await readTensorAsFloat32(tensors.get(name)!)).data;
  const trained = peft.trainableParameters();
  expect([...trained.keys()].sort()).toEqual(recorded.trainableKeys.toSorted());
  const slopes = gradients(
    loss,
    [...trained.values()].map(({ value }) => value),
  );
  const all = { ...(await peft.baseModel.parameterFeeds()), ...feeds };
  // Both may have inputs of the same names: they are two graphs.
  const outputs = {
    ...(await evaluate(engine, { output }, all)),
    ...(await evaluate(
      engine,
      { loss, ...Object.fromEntries([...trained.keys()].map((key, i) => [`grad.${key}`, slopes[i]!])) },
      all,
    )),
  };
  const floats = (name: string) => outputs[name]!.data as Float32Array;
  expect(relativeL2(floats("output"), await valuesOf("output"))).toBeLessThan(1e-5);
  for (const key of trained.keys()) {
    const name = `grad.${key}`;
    const expected = await valuesOf(name);
    // The bias of keys has no effect on attention: its gradient is nothing but rounding.
    if (Math.hypot(...expected) < 1e-6) expect(Math.hypot(...floats(name)), name).toBeLessThan(1e-6);
    else expect(relativeL2(floats(name), expected), name).toBeLessThan(1e-4);
  }
  return { loss: floats("loss")[0]! };
}

/** Saves an adapter and compares both files with PEFT's. */
export async function expectSavedAsRecorded(peft: PeftModel, recorded: Recorded): Promise<void> {
  const saved = join(await temporaryFolder(), "saved");
  await peft.savePretrained(saved);
  const [own, original] = [saved, adapterPath(recorded)];
  const weights = (path: string) => readFileSync(join(path, "adapter_model.safetensors"));
  expect(weights(own).equals(weights(original))).toBe(true);
  const config = (path: string) =>
    JSON.parse(readFileSync(join(path, "adapter_config.json"), "utf8")) as Settings;
  expect({ ...config(own), base_model_name_or_path: null }).toEqual(config(original));
}

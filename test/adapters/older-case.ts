import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { moduleTreeOf } from "../../src/adapters/index.ts";
import { buildImageTextToText, type ImageTextToTextLM } from "../../src/models/index.ts";
import type { OlderLayout } from "../../src/nn/index.ts";
import { type ModuleTree, parseSkeleton } from "../../src/selection/index.ts";
import { zeros } from "../../src/tensor/index.ts";

/** What scripts/record_florence2_older_adapters.py writes. */
export const olderVectors = fileURLToPath(new URL("../vectors/florence2-older", import.meta.url));

const read = (file: string): unknown => JSON.parse(readFileSync(join(olderVectors, file), "utf8"));

export type RecordedSelection = {
  readonly name: string;
  readonly config: Record<string, unknown>;
  readonly error?: string;
  readonly targets: readonly { name: string; r: number; alpha: number; scaling: number }[];
  readonly modulesToSave: readonly string[];
  readonly trainableParameters: number;
  readonly totalParameters: number;
  readonly stateDict: readonly (readonly [string, readonly number[]])[];
};

export const recordedSelections = (): RecordedSelection[] => read("selections.json") as RecordedSelection[];
export const savedAdapters = (): string[] => (read("manifest.json") as { adapters: string[] }).adapters;

/** The model of the older config.json, without weights. */
export function olderModel(name = "somewhere"): ImageTextToTextLM {
  const { model, config, warnings } = buildImageTextToText(read("config.json"), "config.json");
  const checkpoint = { name, tensors: new Map(), metadata: {} };
  model.origin = { name, config: config!, generationConfig: undefined, checkpoint, warnings };
  return model;
}

/** The same with weights of zero, for adapters that base weights are saved with. */
export function zeroModel(): ImageTextToTextLM {
  const model = olderModel();
  for (const [, parameter] of model.namedParameters()) parameter.data = zeros("float32", parameter.shape);
  return model;
}

/** The tree of the class that came with older checkpoints, as PyTorch lists it. */
export const recordedTree = (): ModuleTree =>
  parseSkeleton(JSON.parse(gunzipSync(readFileSync(join(olderVectors, "tree.json.gz"))).toString("utf8")));

export function nativeTree(): { tree: ModuleTree; layout: OlderLayout } {
  const model = olderModel();
  return { tree: moduleTreeOf(model), layout: model.olderLayout! };
}

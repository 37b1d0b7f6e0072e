import { moduleTreeOf } from "../adapters/module-tree.ts";
import type { Checkpoint } from "../checkpoint/index.ts";
import { isGraftError, listProblems, UnsupportedModelError } from "../errors.ts";
import type { LanguageModel } from "../models/language-model.ts";
import { type BuiltModel, buildCausalLM, buildImageTextToText, buildSeq2SeqLM } from "../models/registry.ts";
import type { ModuleTree } from "../selection/tree.ts";
import type { ModelFamily } from "./known-types.ts";
import type { InspectionWarning } from "./types.ts";

type Json = Readonly<Record<string, unknown>>;
export type KnownModel = {
  readonly tree: ModuleTree;
  readonly warnings: readonly InspectionWarning[];
  /** A checkpoint under the names that the model has now. */
  readonly convert: (checkpoint: Checkpoint) => Checkpoint;
};

const builders: Readonly<Record<ModelFamily, (config: unknown, file: string) => BuiltModel<LanguageModel>>> =
  {
    causal: buildCausalLM,
    seq2seq: buildSeq2SeqLM,
    "image-text": buildImageTextToText,
  };

/** The modules of a model of a known type. A setting that is not implemented is returned, not thrown. */
export function buildKnownModel(
  family: ModelFamily,
  config: Json,
  file: string,
  name: string,
): KnownModel | UnsupportedModelError {
  try {
    const { model, warnings, config: converted, convert } = builders[family](config, file);
    const checkpoint = { name, tensors: new Map(), metadata: {} };
    model.origin = { name, config: converted ?? config, generationConfig: undefined, checkpoint, warnings };
    return {
      tree: moduleTreeOf(model),
      warnings: warnings.map((message) => ({ code: "model", message })),
      convert: (found) => convert?.(found).checkpoint ?? found,
    };
  } catch (error) {
    if (isGraftError(error) && error instanceof UnsupportedModelError) return error;
    throw error;
  }
}

/** Tensors that older checkpoints hold although they are computed. */
const computed = /(?:^|\.)rotary_emb\.inv_freq$/;

/** Says where the weights are not those of the modules that config.json describes. */
export function compareWithWeights(
  tree: ModuleTree,
  checkpoint: Checkpoint,
  config: Json,
): InspectionWarning[] {
  const { tensors } = checkpoint;
  const isQuantized =
    typeof config["quantization_config"] === "object" && config["quantization_config"] !== null;
  if (isQuantized)
    return [
      {
        code: "quantized",
        message: `${checkpoint.name}: the weights are quantised; shapes and parameters are those of the unpacked layers.`,
      },
    ];
  const prefix = `${(tree.inputEmbeddings ?? "").split(".")[0]}.`;
  const isBare = tensors.size > 0 && ![...tensors.keys()].some((name) => name.startsWith(prefix));
  const stored = (path: string): string =>
    isBare && path.startsWith(prefix) ? path.slice(prefix.length) : path;
  const tied = new Set(tree.tiedWeights.map(([name]) => name));
  const used = new Set(tree.stateDict?.map(([path]) => stored(path))); // buffers are saved too
  const problems: string[] = [];
  for (const module of tree.modules)
    for (const [parameter, shape] of module.parameters) {
      const path = module.name === "" ? parameter : `${module.name}.${parameter}`;
      const name = stored(path);
      used.add(name);
      const found = tensors.get(name);
      if (found === undefined) {
        if (!tied.has(path)) problems.push(`"${name}" is missing`);
      } else if (found.shape.length !== shape.length || found.shape.some((dim, i) => dim !== shape[i]))
        problems.push(`"${name}" is [${found.shape.join(", ")}] instead of [${shape.join(", ")}]`);
    }
  const unused = [...tensors.keys()].filter((name) => !used.has(name) && !computed.test(name));
  const warnings: InspectionWarning[] = [];
  if (problems.length > 0)
    warnings.push({
      code: "weights-do-not-fit",
      message: `${checkpoint.name} does not fit its config.json: ${listProblems(problems)}. The modules shown are those that config.json describes.`,
      details: { problems: problems.slice(0, 1000) },
    });
  if (unused.length > 0)
    warnings.push({
      code: "unused-tensors",
      message: `${checkpoint.name}: tensors that ${tree.className} does not have: ${listProblems(unused.map((name) => `"${name}"`))}.`,
      details: { tensors: unused.slice(0, 1000) },
    });
  return warnings;
}

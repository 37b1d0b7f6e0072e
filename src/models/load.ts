import {
  type Checkpoint,
  type FileStore,
  openStore,
  readCheckpoint,
  readJson,
  readJsonIfPresent,
  type TensorEntry,
} from "../checkpoint/index.ts";
import { CheckpointError, closest, listedProblems, listProblems } from "../errors.ts";
import { formatShape } from "../graph/index.ts";
import type { ModuleBuffer, Parameter } from "../nn/index.ts";
import type { DType } from "../tensor/index.ts";
import type { CausalLM } from "./causal-lm.ts";
import type { ImageTextToTextLM } from "./image-text-lm.ts";
import type { LanguageModel } from "./language-model.ts";
import {
  type BuiltModel,
  buildCausalLM,
  buildImageTextToText,
  buildLanguageModel,
  buildSeq2SeqLM,
} from "./registry.ts";
import type { Seq2SeqLM } from "./seq2seq-lm.ts";

const weightDtypes: ReadonlySet<DType> = new Set(["float32", "float16", "bfloat16"]);

/** Tensors that older checkpoints hold although they are computed, or say nothing. */
const needless = /(^|\.)(rotary_emb\.inv_freq|(en|de)coder\.version)$/;

/** Loads the model that `build` makes of the config.json at a location, with its weights by reference. */
async function loadModel<M extends LanguageModel>(
  location: string | FileStore,
  build: (config: unknown, file: string) => BuiltModel<M>,
): Promise<M> {
  const store = await openStore(location);
  const raw = (await readJson(store, "config.json")) as Record<string, unknown>;
  const { model, warnings, config = raw, convert } = build(raw, `${store.name}/config.json`);
  const [stored, generationConfig] = await Promise.all([
    readCheckpoint(store),
    readJsonIfPresent(store, "generation_config.json"),
  ]);
  const { checkpoint, made } = convert ? convert(stored) : { checkpoint: stored, made: undefined };
  const unused = bindWeights(model, checkpoint);
  // ONNX Runtime takes weights from files or from memory, not both: what was made here is fed instead.
  if (made)
    for (const [, parameter] of model.namedParameters())
      if (parameter.storage && made.has(parameter.storage.name)) await parameter.materialize();
  if (unused.length > 0)
    warnings.push(
      `${checkpoint.name}: tensors that ${model.modelType} does not have are not used: ${listProblems(unused)}.`,
    );
  model.origin = {
    name: store.name,
    config,
    generationConfig: generationConfig as Record<string, unknown> | undefined,
    checkpoint,
    warnings,
  };
  return model;
}

export const AutoModelForCausalLM = {
  /**
   * Loads a causal language model: a directory with config.json and safetensors (single or sharded), a URL, or a store of
   * files. Weights stay where they are; only headers are read.
   * @throws CheckpointError if files are missing, malformed or do not fit the configuration.
   * @throws UnsupportedModelError for a model type or setting that is not implemented.
   */
  fromPretrained(location: string | FileStore): Promise<CausalLM> {
    return loadModel(location, buildCausalLM);
  },
};

export const AutoModelForSeq2SeqLM = {
  /**
   * Loads an encoder–decoder that writes text, as `AutoModelForCausalLM` loads a causal model.
   * @throws CheckpointError if files are missing, malformed or do not fit the configuration.
   * @throws UnsupportedModelError for a model type or setting that is not implemented.
   */
  fromPretrained(location: string | FileStore): Promise<Seq2SeqLM> {
    return loadModel(location, buildSeq2SeqLM);
  },
};

export const AutoModelForImageTextToText = {
  /**
   * Loads an encoder–decoder that reads pictures, as `AutoModelForCausalLM` loads a causal model. A Florence-2 in the layout
   * of the hub's remote code is renamed to transformers' while it is loaded.
   * @throws CheckpointError if files are missing, malformed or do not fit the configuration.
   * @throws UnsupportedModelError for a model type or setting that is not implemented.
   */
  fromPretrained(location: string | FileStore): Promise<ImageTextToTextLM> {
    return loadModel(location, buildImageTextToText);
  },
};

/**
 * Loads whatever kind of model the config.json at a location describes: a `CausalLM`, a `Seq2SeqLM` or an `ImageTextToTextLM`.
 * @throws CheckpointError if files are missing, malformed or do not fit the configuration.
 * @throws UnsupportedModelError for a model type or setting that is not implemented.
 */
export const loadLanguageModel = (location: string | FileStore): Promise<LanguageModel> =>
  loadModel(location, buildLanguageModel);

/**
 * Gives every parameter and buffer its tensor. Names may lack the base model's prefix, as in checkpoints of the bare model.
 * A shared parameter takes the tensor under any of its names, and a buffer that the checkpoint leaves out stays without one.
 * Returns the names of tensors that nothing takes.
 * @throws CheckpointError that lists all missing tensors and wrong shapes and dtypes.
 */
export function bindWeights(model: LanguageModel, checkpoint: Checkpoint): string[] {
  const prefix = `${model.inputEmbeddingPath.split(".")[0]}.`;
  const { tensors } = checkpoint;
  const bare = ![...tensors.keys()].some((name) => name.startsWith(prefix));
  const nameOf = (path: string): string =>
    bare && path.startsWith(prefix) ? path.slice(prefix.length) : path;
  const problems: string[] = [];
  const used = new Set<string>();
  // Looking for the closest name takes a while among many: only for what the message lists.
  const hint = (name: string): string =>
    problems.length < listedProblems
      ? closest(
          name,
          [...tensors.keys()].filter((other) => !used.has(other)),
        )
      : "";
  for (const [parameter, paths] of model.parameterPaths()) {
    const names = paths.map(nameOf);
    const entry = names.map((name) => tensors.get(name)).find((found) => found !== undefined);
    for (const name of names) used.add(name);
    parameter.name = paths[0];
    const problem = entry
      ? bindTensor(parameter, entry)
      : `tensor "${names[0]}" is missing${hint(names[0]!)}`;
    if (problem !== undefined) problems.push(problem);
  }
  for (const [path, buffer] of model.namedBuffers()) {
    const entry = tensors.get(nameOf(path));
    used.add(nameOf(path));
    const problem = entry && bindTensor(buffer, entry);
    if (problem !== undefined) problems.push(problem);
  }
  if (problems.length > 0)
    throw new CheckpointError(
      `${checkpoint.name} does not fit its config.json: ${listProblems(problems)}. Is the checkpoint complete, and is config.json its own?`,
      { code: "weights-do-not-fit", details: { checkpoint: checkpoint.name, problems } },
    );
  return [...tensors.keys()].filter((name) => !used.has(name) && !needless.test(name));
}

function bindTensor(taker: Parameter | ModuleBuffer, entry: TensorEntry): string | undefined {
  const { name, dtype, shape } = entry;
  if (shape.length !== taker.shape.length || shape.some((dim, i) => dim !== taker.shape[i]))
    return `tensor "${name}" has shape ${formatShape(shape)}, expected ${formatShape(taker.shape)}`;
  if (!weightDtypes.has(dtype))
    return `tensor "${name}" is stored as ${dtype}; float32, float16 and bfloat16 are supported`;
  taker.storage = entry;
  return undefined;
}

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
import type { Parameter } from "../nn/index.ts";
import type { DType } from "../tensor/index.ts";
import type { CausalLM } from "./causal-lm.ts";
import { buildCausalLM } from "./registry.ts";

const weightDtypes: ReadonlySet<DType> = new Set(["float32", "float16", "bfloat16"]);

/** Tensors that older checkpoints hold although they are computed. */
const computed = /(^|\.)rotary_emb\.inv_freq$/;

export const AutoModelForCausalLM = {
  /**
   * Loads a causal language model: a directory with config.json and safetensors (single or sharded), a URL, or a store of
   * files. Weights stay where they are; only headers are read.
   * @throws CheckpointError if files are missing, malformed or do not fit the configuration.
   * @throws UnsupportedModelError for a model type or setting that is not implemented.
   */
  async fromPretrained(location: string | FileStore): Promise<CausalLM> {
    const store = await openStore(location);
    const config = (await readJson(store, "config.json")) as Record<string, unknown>;
    const { model, warnings } = buildCausalLM(config, `${store.name}/config.json`);
    const [checkpoint, generationConfig] = await Promise.all([
      readCheckpoint(store),
      readJsonIfPresent(store, "generation_config.json"),
    ]);
    const unused = bindWeights(model, checkpoint);
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
  },
};

/**
 * Gives every parameter its tensor. Names may lack the base model's prefix, as in checkpoints of the bare model.
 * Returns the names of tensors that no parameter takes.
 * @throws CheckpointError that lists all missing tensors and wrong shapes and dtypes.
 */
export function bindWeights(model: CausalLM, checkpoint: Checkpoint): string[] {
  const prefix = `${model.inputEmbeddingPath.split(".")[0]}.`;
  const { tensors } = checkpoint;
  const bare = ![...tensors.keys()].some((name) => name.startsWith(prefix));
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
  for (const [path, parameter] of model.namedParameters()) {
    const name = bare && path.startsWith(prefix) ? path.slice(prefix.length) : path;
    const entry = tensors.get(name);
    used.add(name);
    parameter.name = path;
    const problem = entry ? bindParameter(parameter, entry) : `tensor "${name}" is missing${hint(name)}`;
    if (problem !== undefined) problems.push(problem);
  }
  if (problems.length > 0)
    throw new CheckpointError(
      `${checkpoint.name} does not fit its config.json: ${listProblems(problems)}. Is the checkpoint complete, and is config.json its own?`,
      { code: "weights-do-not-fit", details: { checkpoint: checkpoint.name, problems } },
    );
  const tied = model.tiedEmbeddings ? `${model.outputEmbeddingPath}.weight` : undefined;
  return [...tensors.keys()].filter((name) => !used.has(name) && name !== tied && !computed.test(name));
}

function bindParameter(parameter: Parameter, entry: TensorEntry): string | undefined {
  const { name, dtype, shape } = entry;
  if (shape.length !== parameter.shape.length || shape.some((dim, i) => dim !== parameter.shape[i]))
    return `tensor "${name}" has shape ${formatShape(shape)}, expected ${formatShape(parameter.shape)}`;
  if (!weightDtypes.has(dtype))
    return `tensor "${name}" is stored as ${dtype}; float32, float16 and bfloat16 are supported`;
  parameter.storage = entry;
  return undefined;
}

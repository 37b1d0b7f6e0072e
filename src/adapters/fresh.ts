import { type Checkpoint, readTensorAsFloat32, type TensorEntry } from "../checkpoint/index.ts";
import { AdapterError, listProblems } from "../errors.ts";
import { type ModuleTree, type Selection, selectTargets } from "../selection/index.ts";
import { type Tensor, zeros } from "../tensor/index.ts";
import { autoMappingOf, type LoraConfig } from "./config.ts";
import { generatorFor, kaimingUniform, normal } from "./lora-init.ts";
import { KEY_PREFIX } from "./lora-layer.ts";

/** A new adapter for a model of which only the names and shapes need be known. */
export type FreshAdapter = {
  readonly config: LoraConfig;
  readonly selection: Selection;
  /** By the keys of adapter_model.safetensors; base weights that are saved along stay in their file. */
  readonly tensors: ReadonlyMap<string, Tensor | TensorEntry>;
};

export type FreshAdapterOptions = {
  /** Another seed starts the adapter differently. */
  readonly seed?: number;
  /**
   * The base weights, for `modulesToSave`, biases and token rows, which start as copies of them; called only where there
   * are such. Undefined if the model has none.
   */
  readonly openCheckpoint?: () => Promise<Checkpoint | undefined>;
};

/**
 * The weights that training starts from, for any model: A random, B zero, so that the adapter changes nothing yet. The
 * same values as `getPeftModel` with that seed.
 * @throws SelectionError where PEFT's selection fails.
 * @throws AdapterError `needs-weights` listing tensors that start as copies of base weights which are not there,
 * `unsupported-init` for starts that are computed from the base weights.
 * Source: PEFT 0.21 tuners/lora/layer.py, `reset_lora_parameters`.
 */
export async function freshAdapter(
  tree: ModuleTree,
  config: LoraConfig,
  { seed = 0, openCheckpoint }: FreshAdapterOptions = {},
): Promise<FreshAdapter> {
  const selection = selectTargets(tree, config.with({ inferenceMode: false }).toSelection());
  refuseComputed(config);
  const tensors = new Map<string, Tensor | TensorEntry>();
  const missing: string[] = [];
  let opened: Promise<Checkpoint | undefined> | undefined;
  const rankOf = makeRankLookup(selection);
  for (const [key, shape] of selection.stateDict) {
    let tensor: Tensor | TensorEntry | undefined = startOf(key, shape, rankOf, config, seed);
    if (tensor === undefined) {
      opened ??= openCheckpoint?.() ?? Promise.resolve(undefined);
      tensor = await baseTensor(key, config, tree, await opened);
    }
    if (tensor === undefined) missing.push(key.slice(KEY_PREFIX.length));
    else tensors.set(key, tensor);
  }
  if (missing.length > 0)
    throw new AdapterError(
      `these tensors start as copies of base weights, which are not there: ${listProblems(missing)}. ` +
        "Name a model with its weights, or write the configuration only.",
      { code: "needs-weights", details: { tensors: missing } },
    );
  return { config: savedConfig(config, selection, tree), selection, tensors };
}

/** The configuration as PEFT saves it: as the injection left it, for inference. */
export const savedConfig = (config: LoraConfig, selection: Selection, tree: ModuleTree): LoraConfig =>
  config.with({
    ...selection.config,
    initLoraWeights: config.initLoraWeights,
    baseModelNameOrPath: config.baseModelNameOrPath ?? tree.name,
    inferenceMode: true,
    // Without a task type PEFT says which class was adapted, so that AutoPeftModel finds it.
    ...(config.taskType === null &&
      tree.className !== "" && { autoMapping: autoMappingOf(tree.className, tree.modelType) }),
  });

function refuseComputed({ initLoraWeights: init, useDora }: LoraConfig): void {
  if (typeof init === "string" && init !== "gaussian")
    throw new AdapterError(
      `initLoraWeights ${JSON.stringify(init)} computes the start from the base weights, which PEFT does in Python. Use true or "gaussian", or write the configuration only.`,
      { code: "unsupported-init", details: { initLoraWeights: init } },
    );
  if (useDora)
    throw new AdapterError(
      "useDora starts from the norms of the base weights, which are not computed here. Write the configuration only, and let PEFT make the weights.",
      { code: "unsupported-init", details: { useDora } },
    );
}

/** Where LoRA's own tensors start; undefined for tensors that are copies of base weights. */
function startOf(
  key: string,
  shape: readonly number[],
  rankOf: RankLookup,
  { initLoraWeights: init }: LoraConfig,
  seed: number,
): Tensor<"float32"> | undefined {
  const tail = /\.lora_(?:A\.weight|B\.weight|B\.bias|embedding_A|embedding_B)$/.exec(key)?.[0];
  if (tail === undefined) return undefined;
  const random = generatorFor(seed, key);
  switch (tail) {
    case ".lora_A.weight":
      return init === "gaussian"
        ? normal(shape, 1 / rankOf(key, shape), random)
        : kaimingUniform(shape, random);
    case ".lora_B.weight":
      return init === false ? kaimingUniform(shape, random) : zeros("float32", shape);
    case ".lora_embedding_A":
      return init === false ? normal(shape, 1, random) : zeros("float32", shape);
    case ".lora_embedding_B":
      return normal(shape, 1, random);
    default:
      return zeros("float32", shape);
  }
}

type RankLookup = (key: string, shape: readonly number[]) => number;

/** A's first axis is the rank, but for stacked experts, where it is the rank times their number. */
function makeRankLookup({ targetParameters }: Selection): RankLookup {
  const stacked = new Map(
    targetParameters.flatMap(({ name, r, tensors }) => {
      const module = name.slice(0, name.lastIndexOf("."));
      return tensors.map(([, shape]) => [`${module} ${shape}`, r] as const);
    }),
  );
  return (key, shape) => {
    const module = key.slice(KEY_PREFIX.length).replace(/(?:\.base_layer)*\.lora_A\.weight$/, "");
    return stacked.get(`${module} ${shape}`) ?? shape[0]!;
  };
}

/** The base model's tensor behind a saved key, or its rows. */
async function baseTensor(
  key: string,
  { trainableTokenIndices }: LoraConfig,
  tree: ModuleTree,
  checkpoint: Checkpoint | undefined,
): Promise<Tensor | TensorEntry | undefined> {
  if (checkpoint === undefined) return undefined;
  const path = key
    .slice(KEY_PREFIX.length)
    .replace(/\.(?:base_layer|original_module|modules_to_save)\./, ".");
  const delta = ".token_adapter.trainable_tokens_delta";
  if (!path.endsWith(delta)) return entryOf(path, tree, checkpoint);
  const module = path.slice(0, -delta.length);
  const entry = entryOf(`${module}.weight`, tree, checkpoint);
  if (entry === undefined) return undefined;
  const rows = rowsOf(trainableTokenIndices, module);
  if (rows === undefined) return undefined;
  const { shape, data } = await readTensorAsFloat32(entry);
  const width = shape[1]!;
  const taken = zeros("float32", [rows.length, width]);
  for (const [i, row] of rows.entries())
    taken.data.set(data.subarray(row * width, (row + 1) * width), i * width);
  return taken;
}

/** A tensor by its path, or by the path of the tensor that it is tied to. */
function entryOf(path: string, tree: ModuleTree, { tensors }: Checkpoint): TensorEntry | undefined {
  const tied = tree.tiedWeights.find(([other]) => other === path)?.[1];
  return tensors.get(path) ?? (tied === undefined ? undefined : tensors.get(tied));
}

function rowsOf(indices: LoraConfig["trainableTokenIndices"], module: string): readonly number[] | undefined {
  if (indices === null || Array.isArray(indices)) return indices ?? undefined;
  const entry = Object.entries(indices).find(([name]) => module === name || module.endsWith(`.${name}`));
  return entry?.[1];
}

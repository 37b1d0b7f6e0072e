import {
  type ByteSource,
  type FileStore,
  openStore,
  readJson,
  readSafetensors,
  type TensorEntry,
  type TensorsOrEntries,
} from "../checkpoint/index.ts";
import { CheckpointError } from "../errors.ts";
import type { Parameter, PreTrainedModel } from "../nn/index.ts";
import { partsOf, type Selection } from "../selection/peft/selection.ts";
import type { Tensor } from "../tensor/index.ts";
import { autoMappingOf, LoraConfig } from "./config.ts";
import { CONFIG_FILE, WEIGHTS_FILE } from "./files.ts";
import {
  injectAdapter,
  parametersByKey,
  readKey,
  refuseSecond,
  refuseUnsupported,
  removeAdapter,
  savedBuffers,
  savedKey,
} from "./inject.ts";
import { loadAdapterTensors } from "./load.ts";
import { moduleTreeOf } from "./module-tree.ts";
import {
  hasOlderKeys,
  layoutFor,
  type Naming,
  nativeAdapter,
  olderAdapter,
  type SavedAdapter,
} from "./older-adapter.ts";

/** Weights as PEFT saved them before safetensors. */
const PICKLE_FILE = "adapter_model.bin";

/**
 * Puts fresh adapters into a model, which is changed. Another `seed` starts them differently. With `inferenceMode` they are
 * not trained.
 * @throws SelectionError, AdapterError if that cannot be done; the model is then as it was.
 */
export function getPeftModel<M extends PreTrainedModel>(
  model: M,
  config: LoraConfig,
  { seed = 0 }: { seed?: number } = {},
): PeftModel<M> {
  const peft = new PeftModel(model, config, injectAdapter(model, config, { seed }));
  if (config.inferenceMode) freeze(peft);
  return peft;
}

function freeze(peft: PeftModel): void {
  for (const parameter of peft.trainableParameters().values()) parameter.trainable = false;
}

/** A model with an adapter in it. Source: PEFT peft_model.py. */
export class PeftModel<M extends PreTrainedModel = PreTrainedModel> {
  /** The base model; its targeted layers are wrapped. */
  readonly baseModel: M;
  readonly peftConfig: LoraConfig;
  /** What was selected, in which order, and why. */
  readonly selection: Selection;
  /** The names that the files had which it was loaded from; `"native"` for a new adapter. */
  readonly naming: Naming;
  /** The configuration under the older names, where it was loaded under them. */
  readonly #older: LoraConfig | undefined;

  constructor(baseModel: M, peftConfig: LoraConfig, selection: Selection, older?: LoraConfig) {
    this.baseModel = baseModel;
    this.peftConfig = peftConfig;
    this.selection = selection;
    this.#older = older;
    this.naming = (older && baseModel.olderLayout?.naming) ?? "native";
  }

  /**
   * Loads an adapter that PEFT or Graft saved (adapter_config.json and adapter_model.safetensors) into a model.
   * It can be trained on with `isTrainable`. One that was made with an older class of the same model (Florence-2's remote
   * code) is the same adapter here, under the model's own names.
   * @throws CheckpointError if the files are missing or malformed.
   * @throws AdapterError if they are not LoRA's, or belong to another model; the model is then as it was.
   */
  static async fromPretrained<M extends PreTrainedModel>(
    model: M,
    location: string | FileStore,
    { isTrainable = false }: { isTrainable?: boolean } = {},
  ): Promise<PeftModel<M>> {
    const store = await openStore(location);
    const config = LoraConfig.fromJSON(await readJson(store, CONFIG_FILE), {
      file: `${store.name}/${CONFIG_FILE}`,
    });
    const weights = await readSafetensors(await openWeights(store));
    const saved = { config: config.with({ inferenceMode: !isTrainable }), tensors: weights.tensors };
    const { olderLayout: layout } = model;
    const isOlder = layout !== undefined && hasOlderKeys(saved.tensors.keys(), layout, weights.name);
    if (isOlder) {
      refuseUnsupported(loadable(saved.config));
      refuseSecond(model);
    }
    const { config: trained, tensors } = isOlder
      ? await nativeAdapter({ ...saved, file: weights.name }, moduleTreeOf(model), layout)
      : saved;
    const selection = injectAdapter(model, loadable(trained), { seed: 0 });
    const peft = new PeftModel(model, trained, selection, isOlder ? saved.config : undefined);
    try {
      await loadAdapterTensors(peft, tensors, weights.name);
    } catch (error) {
      removeAdapter(model);
      throw error;
    }
    if (!isTrainable) freeze(peft);
    return peft;
  }

  /** What training updates, by saved name, in the order of the module tree. */
  trainableParameters(): Map<string, Parameter> {
    return new Map(
      [...this.baseModel.namedParameters()]
        .filter(([, { trainable }]) => trainable)
        .map(([path, parameter]) => [savedKey(path), parameter]),
    );
  }

  /** PEFT's counts: of trainable and of all parameters, the adapter's included. */
  parameterCounts(): { trainable: number; total: number } {
    let trainable = 0;
    let total = 0;
    for (const [, parameter] of this.baseModel.namedParameters()) {
      total += parameter.size;
      if (parameter.trainable) trainable += parameter.size;
    }
    return { trainable, total };
  }

  /** Prints PEFT's line: `trainable params: 1,536 || all params: 1,444,992 || trainable%: 0.1063`. */
  printTrainableParameters(print: (line: string) => void = console.log): void {
    const { trainable, total } = this.parameterCounts();
    const grouped = (n: number): string => n.toLocaleString("en-US");
    print(
      `trainable params: ${grouped(trainable)} || all params: ${grouped(total)} || trainable%: ${((100 * trainable) / total).toFixed(4)}`,
    );
  }

  /** Reads into memory what is trained but still lies in the checkpoint: biases, `modulesToSave`. */
  async materialize(): Promise<void> {
    for (const parameter of this.trainableParameters().values()) await parameter.materialize();
  }

  /** The adapter's tensors under PEFT's keys; base weights that are saved along stay in their file. */
  stateDict(): Map<string, Tensor | TensorEntry> {
    const tensorOf = this.#tensors();
    return new Map(this.selection.stateDict.map(([key]) => [key, tensorOf(key)!]));
  }

  /** The configuration as PEFT saves it: as the injection left it, for inference. */
  savedConfig(): LoraConfig {
    const { peftConfig } = this;
    const { className, modelType, nameOrPath } = this.baseModel;
    return peftConfig.with({
      ...this.selection.config,
      initLoraWeights: peftConfig.initLoraWeights,
      baseModelNameOrPath: nameOrPath,
      inferenceMode: true,
      // Without a task type PEFT says which class was adapted, so that AutoPeftModel finds it.
      ...(peftConfig.taskType === null && { autoMapping: autoMappingOf(className, modelType) }),
    });
  }

  /**
   * The adapter under other names: what its two files hold, for the class that has them.
   * @param naming `"remote-code"` for Florence-2.
   * @throws AdapterError `unknown-naming` if the model has no such names, `no-older-name` listing modules that have none.
   * @throws SelectionError if no configuration of PEFT says the same there.
   */
  renamed(naming: Naming): SavedAdapter {
    const layout = layoutFor(naming, this.baseModel);
    if (layout === undefined)
      return { config: this.savedConfig(), selection: this.selection, tensors: this.stateDict() };
    const tensorOf = this.#tensors();
    const { tree } = partsOf(this.selection);
    const adapter = olderAdapter({ config: this.peftConfig, tensorOf }, tree, layout, this.#older);
    return { ...adapter, config: adapter.config.with({ baseModelNameOrPath: this.baseModel.nameOrPath }) };
  }

  /** Values of everything that may be saved, by saved name. */
  #tensors(): (key: string) => Tensor | TensorEntry | undefined {
    const parameters = parametersByKey(this.baseModel);
    const buffers = savedBuffers(this.baseModel);
    return (key) => {
      const parameter = parameters.get(readKey(key));
      return parameter?.data ?? ((parameter ?? buffers.get(key))?.storage as TensorEntry | undefined);
    };
  }

  /** Contents of the adapter's two files. @throws as `renamed` for a naming other than "native". */
  files({ naming = "native" }: { naming?: Naming } = {}): {
    config: string;
    tensors: TensorsOrEntries;
    metadata: Record<string, string>;
  } {
    const { config, tensors } = this.renamed(naming);
    return { config: config.stringify(), tensors, metadata: { format: "pt" } };
  }

  /**
   * Writes adapter_config.json and adapter_model.safetensors into a directory, which is made if need be (Node only).
   * Both are there afterwards, or neither is. With `naming: "remote-code"` they are for the class that came with older
   * Florence-2 checkpoints.
   * @throws CheckpointError if they cannot be written; for another naming as `renamed`.
   */
  async savePretrained(directory: string, options: { naming?: Naming } = {}): Promise<void> {
    const { saveAdapter } = await import("./node.ts");
    await saveAdapter(this, directory, options);
  }
}

/** Saved weights need no initialisation: one that is not implemented here is no obstacle to loading. */
const loadable = (config: LoraConfig): LoraConfig => {
  const unsupported = config.unsupportedForTraining();
  return unsupported.length > 0 && unsupported.every((entry) => entry.loadable)
    ? config.with({ initLoraWeights: false })
    : config;
};

async function openWeights(store: FileStore): Promise<ByteSource> {
  const weights = await store.open(WEIGHTS_FILE);
  if (weights) return weights;
  if (await store.open(PICKLE_FILE))
    throw new CheckpointError(
      `${store.name}/${PICKLE_FILE}: this is a PyTorch pickle, which can run any code when it is loaded, so it is not read. ` +
        `Convert it once, in Python, where the file is trusted:
  import torch; from safetensors.torch import save_file
  save_file(torch.load("${PICKLE_FILE}", weights_only=True, map_location="cpu"), "${WEIGHTS_FILE}")`,
      { code: "pickle", details: { files: [PICKLE_FILE] } },
    );
  throw new CheckpointError(
    `${store.name}: there is no ${WEIGHTS_FILE} beside ${CONFIG_FILE}. Is the adapter's folder complete?`,
    { code: "missing-file", details: { store: store.name, file: WEIGHTS_FILE } },
  );
}

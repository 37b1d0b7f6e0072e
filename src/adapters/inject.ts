import { AdapterError } from "../errors.ts";
import {
  Conv2d,
  Embedding,
  Linear,
  type Module,
  type ModuleBuffer,
  type Parameter,
  PositionEmbedding,
  type PreTrainedModel,
} from "../nn/index.ts";
import { type Selection, selectTargets, type Target } from "../selection/index.ts";
import type { LoraConfig } from "./config.ts";
import { LoraConv2d } from "./lora-conv2d.ts";
import { LoraEmbedding } from "./lora-embedding.ts";
import type { LoraInit } from "./lora-init.ts";
import { ADAPTER_NAME, KEY_PREFIX, LoraLayer } from "./lora-layer.ts";
import { LoraLinear } from "./lora-linear.ts";
import { moduleTreeOf } from "./module-tree.ts";
import { SavedModule } from "./saved-module.ts";

/**
 * Puts adapters into the layers that the configuration selects, as PEFT does: each targeted module is replaced by one that
 * wraps it. Returns what was selected.
 * @throws SelectionError if the selection fails where PEFT's does.
 * @throws AdapterError if it needs something that cannot be trained here. Nothing is changed then.
 * Source: PEFT tuners/tuners_utils.py, BaseTuner.inject_adapter.
 */
export function injectAdapter(
  model: PreTrainedModel,
  config: LoraConfig,
  { seed }: { seed: number },
): Selection {
  refuseUnsupported(config);
  refuseSecond(model);
  const selection = selectTargets(moduleTreeOf(model), config.toSelection());
  refuseTying(selection);
  const layers = selection.targets.map(
    (target) => [target.name, wrap(model.getModule(target.name), target, config, seed)] as const,
  );
  const saved = selection.modulesToSave.map(
    (path) => [path, new SavedModule(path, model.getModule(path))] as const,
  );
  for (const [path, layer] of [...layers, ...saved]) model.replaceModule(path, layer);
  for (const [path, parameter] of model.namedParameters())
    if (parameter.trainable) parameter.name = savedKey(path);
  trainBiases(
    model,
    config.bias,
    layers.map(([, layer]) => layer),
  );
  return selection;
}

/**
 * Takes the adapters out again: the model is as it was before `injectAdapter`, but for base weights that were loaded or
 * trained since.
 */
export function removeAdapter(model: PreTrainedModel): void {
  for (const [path, module] of [...model.namedModules()]) {
    const original = replacedBy(module);
    if (original) model.replaceModule(path, original);
  }
  for (const [path, parameter] of model.namedParameters()) {
    parameter.trainable = false;
    parameter.name = path;
  }
}

/** The layer that an adapter's module stands in the place of; undefined for every other module. */
function replacedBy(module: Module): Module | undefined {
  if (module instanceof LoraLayer) return module.base_layer;
  return module instanceof SavedModule ? module.original_module : undefined;
}

/** PEFT would adapt the layers inside the first adapter, or put a second one beside it. */
export function refuseSecond(model: PreTrainedModel): void {
  for (const [path, module] of model.namedModules())
    if (replacedBy(module))
      throw new AdapterError(
        `${model.nameOrPath} has an adapter already (in "${path}"), and one model carries one adapter. Load the model again for another one.`,
        { code: "already-adapted", details: { path } },
      );
}

/** @throws AdapterError for settings that are not implemented. */
export function refuseUnsupported(config: LoraConfig): void {
  const unsupported = config.unsupportedForTraining();
  if (unsupported.length === 0) return;
  throw new AdapterError(
    unsupported.map(({ field, reason, remedy }) => `${field}: ${reason} ${remedy}`).join("\n"),
    { code: "unsupported-adapter", details: { fields: unsupported.map(({ field }) => field) } },
  );
}

/** Adapters that share their weights between tied layers are selected as in PEFT, but cannot be trained here yet. */
function refuseTying({ config: { modulesToTie, targetModulesToTie } }: Selection): void {
  const tied = [...(modulesToTie ?? []), ...(targetModulesToTie ?? [])];
  if (tied.length === 0) return;
  throw new AdapterError(
    `ensureWeightTying: adapters of tied layers (${tied.join(", ")}) are not shared here yet. Leave ensureWeightTying out, or do not adapt the embedding.`,
    { code: "unsupported-adapter", details: { fields: ["ensureWeightTying"], tied } },
  );
}

function wrap(module: Module, target: Target, config: LoraConfig, seed: number): LoraLayer {
  const { name: path, r, scaling } = target;
  const init = config.initLoraWeights as LoraInit;
  const options = { path, r, scaling, dropout: config.loraDropout, init, seed };
  if (module instanceof Linear) return new LoraLinear(module, options);
  if (module instanceof Conv2d) return new LoraConv2d(module, options);
  if (module instanceof Embedding && !(module instanceof PositionEmbedding))
    return new LoraEmbedding(module, options);
  const { className } = module;
  throw new AdapterError(
    module instanceof PositionEmbedding
      ? `"${path}" is a ${className}, which looks up places, while PEFT's adapter looks up the tokens that the layer is given: there it fails, or adds rows of other places. Name it in modulesToSave to train it as a whole.`
      : `"${path}" is a ${className}, which cannot carry LoRA; linear layers, embeddings and convolutions can.`,
    { code: "unsupported-module-type", details: { path, className } },
  );
}

/** `bias`: "all" trains every bias of the model, "lora_only" those of adapted layers. */
function trainBiases(model: PreTrainedModel, bias: string, layers: readonly LoraLayer[]): void {
  if (bias === "none") return;
  const adapted = new Set(
    layers.flatMap((layer) =>
      layer.base_layer
        .parameters()
        .flatMap(([segment, parameter]) => (segment === "bias" ? [parameter] : [])),
    ),
  );
  for (const [path, parameter] of model.namedParameters()) {
    const chosen = bias === "all" ? path === "bias" || path.endsWith(".bias") : adapted.has(parameter);
    if (!chosen || parameter.trainable || isReplaced(path)) continue;
    parameter.trainable = true;
    parameter.name = savedKey(path);
  }
}

/** Whether a parameter belongs to a layer of which a copy is trained in its place. */
const isReplaced = (path: string): boolean => path.includes(".original_module.");

/** Name of a parameter in adapter_model.safetensors, from its path in the adapted model. */
export const savedKey = (path: string): string =>
  KEY_PREFIX + path.replace(`.modules_to_save.${ADAPTER_NAME}`, "").replace(`.${ADAPTER_NAME}.`, ".");

/**
 * Every parameter of an adapted model under its saved name, in the order in which torch reads them; one that several layers
 * share is there under the name of each.
 */
export function parametersByKey(model: PreTrainedModel): Map<string, Parameter> {
  const parameters = new Map<string, Parameter>();
  for (const [path, module] of model.namedModules())
    for (const [segment, parameter] of module.parameters())
      parameters.set(savedKey(path === "" ? segment : `${path}.${segment}`), parameter);
  return parameters;
}

/** Buffers of `modulesToSave`, which PEFT saves with their modules, under their saved names. */
export function savedBuffers(model: PreTrainedModel): Map<string, ModuleBuffer> {
  const buffers = new Map<string, ModuleBuffer>();
  for (const [path, buffer] of model.namedBuffers())
    if (path.includes(`.modules_to_save.${ADAPTER_NAME}.`)) buffers.set(savedKey(path), buffer);
  return buffers;
}

/**
 * The name that counts for a saved tensor. With `bias: "all"` PEFT saves the biases of `modulesToSave` twice, and loads only
 * those without the wrapper's segment.
 */
export const readKey = (key: string): string => key.replace(".modules_to_save.", ".");

import { AdapterError } from "../errors.ts";
import type { Value } from "../graph/index.ts";
import { Layer, type Module, ModuleDict, Parameter } from "../nn/index.ts";
import { ADAPTER_NAME } from "./lora-layer.ts";

/**
 * A layer of which a copy is trained as a whole and saved with the adapter (`modulesToSave`).
 * Source: PEFT utils/other.py, ModulesToSaveWrapper.
 */
export class SavedModule extends Layer {
  override readonly className = "ModulesToSaveWrapper";
  readonly original_module: Layer;
  readonly modules_to_save = new ModuleDict<Layer>();

  /** @throws AdapterError if the module is not a single layer. */
  constructor(path: string, module: Module) {
    super();
    if (!(module instanceof Layer) || module.children().length > 0)
      throw new AdapterError(
        `modulesToSave: "${path}" is a ${module.className}; single layers (linear, embedding, norm) can be trained as a whole. Name the layers inside it.`,
        { code: "cannot-save-module", details: { path, className: module.className } },
      );
    this.original_module = module;
    this.modules_to_save.items.set(ADAPTER_NAME, copyLayer(module));
  }

  override forward(x: Value): Value {
    return this.modules_to_save.items.get(ADAPTER_NAME)!.forward(x);
  }
}

/** The same layer with parameters of its own, which start as the original's. */
function copyLayer(layer: Layer): Layer {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(layer)), layer) as Layer &
    Record<string, unknown>;
  for (const [segment, original] of layer.parameters()) {
    const parameter = new Parameter(original.shape);
    parameter.storage = original.storage;
    parameter.data = original.data && { ...original.data, data: original.data.data.slice() };
    parameter.trainable = true;
    copy[segment] = parameter;
  }
  return copy;
}

import { AdapterError } from "../errors.ts";
import type { Value } from "../graph/index.ts";
import { Layer, Module, ModuleBuffer, ModuleDict, Parameter } from "../nn/index.ts";
import { ADAPTER_NAME } from "./lora-layer.ts";

/**
 * A module of which a copy is trained as a whole and saved with the adapter (`modulesToSave`): a layer, or several that
 * together make one value of another, such as an MLP or a projector.
 * Source: PEFT utils/other.py, ModulesToSaveWrapper.
 */
export class SavedModule extends Layer {
  override readonly className = "ModulesToSaveWrapper";
  readonly original_module: Layer;
  readonly modules_to_save = new ModuleDict<Layer>();

  /** @throws AdapterError if the module is called with more than one value, or has a buffer that the checkpoint lacks. */
  constructor(path: string, module: Module) {
    super();
    const refuse = (why: string): AdapterError =>
      new AdapterError(`modulesToSave: "${path}" is a ${module.className}${why}`, {
        code: "cannot-save-module",
        details: { path, className: module.className },
      });
    if (!(module instanceof Layer))
      throw refuse(
        module.children().length > 0
          ? ", which does more than make one value of another and cannot be trained as a whole. Name the layers inside it."
          : ", which has nothing to train. Leave it out.",
      );
    for (const [name, { storage }] of module.namedBuffers())
      if (!storage)
        throw refuse(
          ` whose "${name}" PEFT saves with it, and the checkpoint does not have it. Name the layers inside it.`,
        );
    this.original_module = module;
    this.modules_to_save.items.set(ADAPTER_NAME, copyModule(module));
  }

  override forward(x: Value): Value {
    return this.modules_to_save.items.get(ADAPTER_NAME)!.forward(x);
  }
}

/** The same module with trained parameters of its own, which start as the original's. */
function copyModule<M extends Module>(module: M): M {
  const copies = new Map<unknown, unknown>();
  const copyOf = (value: unknown): unknown => {
    if (copies.has(value)) return copies.get(value);
    const copy = make(value);
    if (copy !== value) copies.set(value, copy);
    return copy;
  };
  const make = (value: unknown): unknown => {
    if (value instanceof Parameter) return copyParameter(value);
    if (value instanceof ModuleBuffer)
      return Object.assign(new ModuleBuffer(value.shape), { storage: value.storage });
    if (value instanceof Module) {
      const fields = Object.entries(value).map(([name, field]) => [name, copyOf(field)]);
      return Object.assign(Object.create(Object.getPrototypeOf(value)), Object.fromEntries(fields));
    }
    if (Array.isArray(value)) return value.map(copyOf);
    return value instanceof Map ? new Map([...value].map(([key, item]) => [key, copyOf(item)])) : value;
  };
  return copyOf(module) as M;
}

function copyParameter({ shape, storage, data }: Parameter): Parameter {
  const parameter = new Parameter(shape);
  parameter.storage = storage;
  parameter.data = data && { ...data, data: data.data.slice() };
  parameter.trainable = true;
  return parameter;
}

import type { Value } from "../graph/index.ts";
import { Layer, ModuleDict, Parameter } from "../nn/index.ts";
import type { LoraInit } from "./lora-init.ts";

/** The adapter's name in the module tree, as in PEFT; saved keys leave it out. */
export const ADAPTER_NAME = "default";

export type LoraLayerOptions = {
  /** Path of the layer in the base model. */
  readonly path: string;
  readonly r: number;
  /** α/r, or α/√r with rsLoRA. */
  readonly scaling: number;
  readonly dropout: number;
  readonly init: LoraInit;
  readonly seed: number;
};

/** What every saved name begins with: PEFT's own wrappers around the base model. */
export const KEY_PREFIX = "base_model.model.";

/** Name of an adapter's tensor in adapter_model.safetensors. */
export const adapterKey = (path: string, tail: string): string => `${KEY_PREFIX}${path}.${tail}`;

/** A layer that carries an adapter, in the place of the one it adapts. */
export abstract class LoraLayer<Base extends Layer = Layer> extends Layer {
  readonly base_layer: Base;
  readonly scaling: number;

  constructor(base: Base, scaling: number) {
    super();
    this.base_layer = base;
    this.scaling = scaling;
  }

  /** The adapter's own parameters. */
  abstract adapterParameters(): Parameter[];

  abstract override forward(x: Value): Value;
}

/** A parameter that is trained and saved under `key`. */
export function adapterParameter(key: string, shape: readonly number[]): Parameter {
  const created = new Parameter(shape, key);
  created.trainable = true;
  return created;
}

/** A layer under the adapter's name. */
export const named = <M extends Layer>(layer: M): ModuleDict<M> => {
  const dict = new ModuleDict<M>();
  dict.items.set(ADAPTER_NAME, layer);
  return dict;
};

import { op, type Value } from "../graph/index.ts";
import {
  Dropout,
  type Embedding,
  fromRows,
  Layer,
  Linear,
  ModuleDict,
  Parameter,
  toRows,
} from "../nn/index.ts";
import { zeros } from "../tensor/index.ts";
import { generatorFor, kaimingUniform, type LoraInit, normal } from "./lora-init.ts";

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

function parameter(key: string, shape: readonly number[]): Parameter {
  const created = new Parameter(shape, key);
  created.trainable = true;
  return created;
}

const named = <M extends Layer>(layer: M): ModuleDict<M> => {
  const dict = new ModuleDict<M>();
  dict.items.set(ADAPTER_NAME, layer);
  return dict;
};

/** A layer that carries an adapter in the place of the one it adapts. */
export type LoraLayer = LoraLinear | LoraEmbedding;

/**
 * Frozen linear plus low-rank update: y = x Wᵀ + b + s·(dropout(x) Aᵀ) Bᵀ.
 * Shapes: x [..., in], A [r, in], B [out, r], y [..., out].
 * Source: Hu et al. 2021, §4.1; PEFT tuners/lora/layer.py.
 */
export class LoraLinear extends Layer {
  override readonly className = "lora.Linear";
  readonly base_layer: Linear;
  readonly lora_dropout: ModuleDict<Dropout>;
  readonly lora_A: ModuleDict<Linear>;
  readonly lora_B: ModuleDict<Linear>;
  readonly scaling: number;

  constructor(base: Linear, { path, r, scaling, dropout, init, seed }: LoraLayerOptions) {
    super();
    this.base_layer = base;
    this.scaling = scaling;
    const a = parameter(adapterKey(path, "lora_A.weight"), [r, base.inFeatures]);
    const b = parameter(adapterKey(path, "lora_B.weight"), [base.outFeatures, r]);
    const random = generatorFor(seed, a.name);
    a.data =
      init === "gaussian"
        ? normal([r, base.inFeatures], 1 / r, random)
        : kaimingUniform([r, base.inFeatures], random);
    b.data =
      init === false
        ? kaimingUniform([base.outFeatures, r], generatorFor(seed, b.name))
        : zeros("float32", b.shape);
    this.lora_dropout = named(new Dropout(dropout, generatorFor(0, path).next()));
    this.lora_A = named(new Linear(base.inFeatures, r, { weight: a }));
    this.lora_B = named(new Linear(r, base.outFeatures, { weight: b }));
  }

  /** The adapter's own parameters. */
  adapterParameters(): Parameter[] {
    return [this.lora_A, this.lora_B].map((dict) => dict.items.get(ADAPTER_NAME)!.weight);
  }

  override forward(x: Value): Value {
    const rows = toRows(x);
    const base = this.base_layer.forward(rows);
    const [a, b] = this.adapterParameters() as [Parameter, Parameter];
    const dropped = this.lora_dropout.items.get(ADAPTER_NAME)!.forward(rows);
    const low = op.gemm(dropped, a.value, { transB: true });
    return fromRows(op.gemm(low, b.value, { c: base, alpha: this.scaling, transB: true }), x);
  }
}

/**
 * Frozen embedding plus low-rank update: y = W[ids] + s·(Aᵀ[ids]) Bᵀ.
 * Shapes: ids [...], A [r, rows], B [dimension, r], y [..., dimension]. A starts at zero, B at N(0, 1), unlike linear layers.
 * Source: PEFT tuners/lora/layer.py, Embedding.
 */
export class LoraEmbedding extends Layer {
  override readonly className = "lora.Embedding";
  readonly base_layer: Embedding;
  readonly lora_embedding_A: Parameter;
  readonly lora_embedding_B: Parameter;
  readonly scaling: number;

  constructor(base: Embedding, { path, r, scaling, init, seed }: LoraLayerOptions) {
    super();
    this.base_layer = base;
    this.scaling = scaling;
    this.lora_embedding_A = parameter(adapterKey(path, "lora_embedding_A"), [r, base.rows]);
    this.lora_embedding_B = parameter(adapterKey(path, "lora_embedding_B"), [base.dimension, r]);
    const { lora_embedding_A: a, lora_embedding_B: b } = this;
    a.data = init === false ? normal(a.shape, 1, generatorFor(seed, a.name)) : zeros("float32", a.shape);
    b.data = normal(b.shape, 1, generatorFor(seed, b.name));
  }

  /** The adapter's own parameters. */
  adapterParameters(): Parameter[] {
    return [this.lora_embedding_A, this.lora_embedding_B];
  }

  override forward(ids: Value): Value {
    const base = this.base_layer.forward(ids);
    const low = op.gather(op.transposeLast(this.lora_embedding_A.value), ids);
    const update = op.gemm(toRows(low), this.lora_embedding_B.value, { alpha: this.scaling, transB: true });
    return op.add(base, fromRows(update, low));
  }
}

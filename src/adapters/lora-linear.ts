import { op, type Value } from "../graph/index.ts";
import { Dropout, fromRows, Linear, type ModuleDict, type Parameter, toRows } from "../nn/index.ts";
import { generatorFor, startOfA, startOfB } from "./lora-init.ts";
import {
  ADAPTER_NAME,
  adapterKey,
  adapterParameter,
  LoraLayer,
  type LoraLayerOptions,
  named,
} from "./lora-layer.ts";

/**
 * Frozen linear plus low-rank update: y = x Wᵀ + b + s·(dropout(x) Aᵀ) Bᵀ.
 * Shapes: x [..., in], A [r, in], B [out, r], y [..., out].
 * Source: Hu et al. 2021, §4.1; PEFT tuners/lora/layer.py.
 */
export class LoraLinear extends LoraLayer<Linear> {
  override readonly className = "lora.Linear";
  readonly lora_dropout: ModuleDict<Dropout>;
  readonly lora_A: ModuleDict<Linear>;
  readonly lora_B: ModuleDict<Linear>;

  constructor(base: Linear, { path, r, scaling, dropout, init, seed }: LoraLayerOptions) {
    super(base, scaling);
    const a = adapterParameter(adapterKey(path, "lora_A.weight"), [r, base.inFeatures]);
    const b = adapterParameter(adapterKey(path, "lora_B.weight"), [base.outFeatures, r]);
    a.data = startOfA(a, init, seed);
    b.data = startOfB(b, init, seed);
    this.lora_dropout = named(new Dropout(dropout, generatorFor(0, path).next()));
    this.lora_A = named(new Linear(base.inFeatures, r, { weight: a }));
    this.lora_B = named(new Linear(r, base.outFeatures, { weight: b }));
  }

  override adapterParameters(): Parameter[] {
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

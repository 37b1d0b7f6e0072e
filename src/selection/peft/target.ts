import type { NamedShape } from "../tree.ts";
import type { LoraLayerName, LoraPlan } from "./lora-plan.ts";
import type { ResolvedConfig } from "./options.ts";
import { describeReason, type TargetReason } from "./reason.ts";

/** One adapted module or parameter. */
export class Target {
  readonly name: string;
  /** PEFT's class of the LoRA layer. */
  readonly layer: LoraLayerName;
  readonly r: number;
  readonly alpha: number;
  readonly scaling: number;
  /** The base weight is stored (in, out). */
  readonly fanInFanOut: boolean;
  /** Number of adapter parameters, frozen ones included. */
  readonly parameters: number;
  readonly reason: TargetReason;
  readonly #plan: LoraPlan;
  readonly #config: ResolvedConfig;

  constructor(name: string, plan: LoraPlan, reason: TargetReason, config: ResolvedConfig) {
    const { layer, r, alpha, scaling, fanInFanOut } = plan.spec;
    this.name = name;
    this.layer = layer;
    this.r = r;
    this.alpha = alpha;
    this.scaling = scaling;
    this.fanInFanOut = fanInFanOut;
    this.parameters = plan.size;
    this.reason = reason;
    this.#plan = plan;
    this.#config = config;
  }

  /** The adapter's tensors: key below the module in the saved file, e.g. `lora_A.weight`, and shape. */
  get tensors(): readonly NamedShape[] {
    let tensors = savedTensors.get(this.#plan);
    if (tensors === undefined) {
      tensors = this.#plan.tensors.map(({ path, shape }) => [savedKey(path), shape]);
      savedTensors.set(this.#plan, tensors);
    }
    return tensors;
  }

  /** The reason in words. */
  get because(): string {
    return describeReason(this.reason, this.#config);
  }
}

/** By plan: one for all layers of the same sizes. */
const savedTensors = new WeakMap<LoraPlan, readonly NamedShape[]>();

/** `lora_A.default.weight` is saved as `lora_A.weight`, a magnitude vector without `.weight`. */
const savedKey = (path: string): string =>
  path.startsWith("lora_magnitude_vector.") ? "lora_magnitude_vector" : path.replace(".default", "");

import { failure, type Warnings } from "../failure.ts";
import { type LoraModule, sizeOf } from "./live.ts";
import type { ResolvedConfig } from "./options.ts";

/** PEFT's class of a LoRA layer. */
export type LoraLayerName =
  | "Linear"
  | "Embedding"
  | "Conv1d"
  | "Conv2d"
  | "Conv3d"
  | "MultiheadAttention"
  | "ParamWrapper";

/** The values of one LoRA layer. */
export type LoraSpec = {
  readonly layer: LoraLayerName;
  readonly r: number;
  readonly alpha: number;
  /** alpha / r, or alpha / √r with rank stabilisation. */
  readonly scaling: number;
  readonly fanInFanOut: boolean;
  readonly dropsOut: boolean;
  /** The parameter that a ParamWrapper adapts. */
  readonly parameterName: string | null;
};

/** One parameter of a LoRA layer. */
export type LoraTensor = {
  /** Within the layer, e.g. `lora_A.default.weight`; `default` is the adapter's name. */
  readonly path: string;
  readonly shape: readonly number[];
  readonly isTrained: boolean;
};

/** What LoRA layers of the same sizes and settings have in common. */
export type LoraPlan = {
  readonly spec: LoraSpec;
  readonly tensors: readonly LoraTensor[];
  /** Numbers of adapter parameters: all, and the trained ones. */
  readonly size: number;
  readonly trained: number;
};

/** What a LoRA layer is made of. */
export type LoraRequest = {
  /** Name of the module or parameter, for messages. */
  readonly name: string;
  readonly r: number;
  readonly alpha: number;
  readonly config: ResolvedConfig;
  readonly warnings: Warnings;
  /** Follow the input embedding: its LoRA factors, transposed, are this layer's. */
  readonly tiedTo: LoraModule | null;
  /** Values and tensors of Linear layers made so far, shared by layers of the same sizes. */
  readonly plans: Map<string, LoraPlan>;
};

/** The values of a layer together with its tensors, counted once for all layers that share them. */
export function makePlan(
  layer: LoraLayerName,
  { r, alpha, config }: LoraRequest,
  tensors: readonly LoraTensor[],
  {
    fanInFanOut = false,
    parameterName = null,
  }: { fanInFanOut?: boolean; parameterName?: string | null } = {},
): LoraPlan {
  const spec: LoraSpec = {
    layer,
    r,
    alpha,
    scaling: config.useRslora ? alpha / Math.sqrt(r) : alpha / r,
    fanInFanOut: Boolean(fanInFanOut),
    dropsOut: config.loraDropout > 0,
    parameterName,
  };
  let size = 0;
  let trained = 0;
  for (const { shape, isTrained } of tensors) {
    size += sizeOf(shape);
    if (isTrained) trained += sizeOf(shape);
  }
  return { spec, tensors, size, trained };
}

export const tensor = (
  path: string,
  shape: readonly number[],
  { config }: LoraRequest,
  isTrained = true,
): LoraTensor => ({ path, shape, isTrained: isTrained && !config.inferenceMode });

export function checkRank({ r, name }: LoraRequest): void {
  if (r > 0 && Number.isInteger(r)) return;
  // a fraction fails in Python only when the tensors are made
  const isFraction = r > 0;
  throw failure(
    "inject",
    isFraction ? "TypeError" : "ValueError",
    isFraction ? "other" : "rank-not-positive",
    `r must be a positive integer, but it is ${r} for "${name}". Check r and rankPattern.`,
    { r, target: name },
  );
}

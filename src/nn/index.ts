export { Activation, activationNames } from "./activations.ts";
export {
  type AttentionOptions,
  blockedAttention,
  causalMask,
  groupedAttention,
  type KeyValue,
  maskBlocks,
  mergeHeads,
  paddingMask,
  splitHeads,
} from "./attention.ts";
export { inBlock, inBlockOf, withRecomputedBlocks } from "./blocks.ts";
export { ModuleBuffer } from "./buffer.ts";
export { Conv2d, type Conv2dOptions, type Size2d } from "./conv2d.ts";
export { Dropout, dropAttention, dropFeatures, dropSamples, withDropoutNoise } from "./dropout.ts";
export { Embedding, PositionEmbedding, ScaledEmbedding } from "./embedding.ts";
export { Identity } from "./identity.ts";
export { LayerNorm } from "./layer-norm.ts";
export { fromRows, Linear, toRows } from "./linear.ts";
export { Layer, Module, ModuleDict, type ModuleKind, ModuleList } from "./module.ts";
export type { ListedModule, ListedModules, OlderLayout } from "./older-layout.ts";
export { Parameter } from "./parameter.ts";
export { PreTrainedModel } from "./pretrained-model.ts";
export { type OutlierChannels, type QuantizedWeight, quantizedProduct } from "./quantized-weight.ts";
export { RMSNorm } from "./rms-norm.ts";
export { RotaryEmbedding, type RotaryTable } from "./rotary.ts";

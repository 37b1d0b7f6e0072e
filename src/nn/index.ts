export { Activation, activationNames } from "./activations.ts";
export { causalMask, groupedAttention, mergeHeads, splitHeads } from "./attention.ts";
export { Dropout } from "./dropout.ts";
export { Embedding } from "./embedding.ts";
export { fromRows, Linear, toRows } from "./linear.ts";
export { Layer, Module, ModuleDict, type ModuleKind, ModuleList } from "./module.ts";
export { Parameter } from "./parameter.ts";
export { RMSNorm } from "./rms-norm.ts";
export { RotaryEmbedding, type RotaryTable } from "./rotary.ts";

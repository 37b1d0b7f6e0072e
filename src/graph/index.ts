export { gradients, pullBack } from "./autodiff.ts";
export { recomputedBlocks } from "./checkpointing.ts";
export { type Cut, type CutOptions, cutFrozen, type Kept } from "./cut/cut-frozen.ts";
export { flopsOf, type Sizes } from "./cut/flops.ts";
export type { KeptRows } from "./cut/kept-rows.ts";
export { joinKept, type Span, spansInRows, spansOfCounts, splitKept } from "./cut/rows.ts";
export {
  type Dim,
  dimAdd,
  dimEquals,
  dimFloorDivide,
  dimMultiply,
  dimProduct,
  dimSubtract,
  evaluateDim,
  formatShape,
  type Shape,
  symbol,
  symbolName,
} from "./dim.ts";
export { type Lowering, lower } from "./lower.ts";
export { emit, type Port, type Program } from "./onnx/emit.ts";
export { numberedPaths } from "./onnx/numbered-paths.ts";
export * as op from "./ops/build.ts";
export type { OpName } from "./ops/signatures.ts";
export { peakBytes } from "./peak-bytes.ts";
export { shareInputs } from "./share-inputs.ts";
export { sinkGathers } from "./sink-gathers.ts";
export { dependents, nodesOf, reachable } from "./traverse.ts";
export {
  constant,
  constantOf,
  dimValue,
  input,
  type Node,
  readStorage,
  scalar,
  Value,
  type WeightStorage,
  weight,
} from "./value.ts";

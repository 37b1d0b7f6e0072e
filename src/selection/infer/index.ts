/** Module trees of models that are known only by the headers of their checkpoints. */
export { inferTree } from "./infer.ts";
export type { InferOptions, InferredTree, InferWarning, TensorInfo } from "./types.ts";

export { byteSize, type DType, dtypes, type TypedArrayOf, typedArrays } from "./dtype.ts";
export { numel, type Tensor, tensor, zeros } from "./tensor.ts";

export { fromFloat32, toFloat32 } from "./cast.ts";
export { byteSize, type DType, dtypes, type TypedArrayOf, typedArrays } from "./dtype.ts";
export {
  bfloat16ArrayToFloat32,
  bfloat16ToFloat32,
  float16ArrayToFloat32,
  float16ToFloat32,
  float32ArrayToBfloat16,
  float32ArrayToFloat16,
  float32ToBfloat16,
  float32ToFloat16,
} from "./half.ts";
export { numel, type Tensor, tensor, zeros } from "./tensor.ts";

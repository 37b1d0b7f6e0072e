export { type CheckedLayer, type CheckOptions, checkProducts } from "./check.ts";
export {
  type BaseDtype,
  baseDtypes,
  type QuantizationReport,
  type QuantizedDtype,
  type QuantizedLayer,
  type QuantizeOptions,
  quantizeWeights,
} from "./quantize.ts";

export {
  type BaseDtype,
  baseDtypes,
  type QuantizationReport,
  type QuantizedDtype,
  type QuantizedLayer,
  type QuantizeOptions,
  quantizeWeights,
} from "./quantize.ts";

export { type CheckedLayer, type CheckOptions, checkProducts } from "./check.ts";
export { decide, isException, type LayerDecision } from "./decision.ts";
export {
  type BaseDtype,
  baseDtypes,
  type QuantizationReport,
  type QuantizedDtype,
  type QuantizedLayer,
  type QuantizeOptions,
  quantizeWeights,
} from "./quantize.ts";

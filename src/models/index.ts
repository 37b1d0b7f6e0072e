export {
  type CacheLayout,
  type CausalInputs,
  CausalLM,
  causalInputs,
  type KeyValue,
  type ModelOrigin,
} from "./causal-lm.ts";
export { AutoModelForCausalLM } from "./load.ts";
export { buildCausalLM, causalModelTypes } from "./registry.ts";

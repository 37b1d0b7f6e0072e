export { type CacheLayout, type CausalInputs, CausalLM, causalInputs } from "./causal-lm.ts";
export { LanguageModel, type ModelOrigin } from "./language-model.ts";
export { AutoModelForCausalLM } from "./load.ts";
export { buildCausalLM, causalModelTypes } from "./registry.ts";

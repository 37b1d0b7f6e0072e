export { CachedDecoder } from "./cached-decoder.ts";
export {
  createLogitsProcessors,
  type GenerationConfig,
  type GenerationOptions,
  type GenerationWarning,
  generationOptionsSchema,
  newTokenLimit,
  resolveGenerationConfig,
} from "./config.ts";
export { type GeneratedToken, type GenerateOptions, generate, generateBatch } from "./generate.ts";
export {
  type LogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  MinPLogitsWarper,
  NoRepeatNGramLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  TemperatureLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
} from "./logits-processors.ts";
export { argmax, Sampler, type SamplerOptions } from "./sampler.ts";
export { type StopReason, StopStringFilter, stopReason } from "./stopping.ts";
export { type TextCodec, TextGenerator, type TextGeneratorOptions } from "./text-generator.ts";
export { TextStreamer } from "./text-streamer.ts";

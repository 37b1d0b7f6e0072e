export { BeamSearch } from "./beam-search.ts";
export {
  checkGenerationOptions,
  createLogitsProcessors,
  type GenerationConfig,
  type GenerationWarning,
  newTokenLimit,
  resolveGenerationConfig,
} from "./config.ts";
export { Continuation, type GeneratedToken } from "./continuation.ts";
export type { CachedDecoder, DecodingRun, Source } from "./decoding.ts";
export { type GenerateOptions, generateTexts, streamText } from "./generate.ts";
export type { GeneratedText } from "./growth.ts";
export {
  ForcedBOSTokenLogitsProcessor,
  ForcedEOSTokenLogitsProcessor,
  type LogitsProcessor,
  MinLengthLogitsProcessor,
  MinNewTokensLengthLogitsProcessor,
  MinPLogitsWarper,
  NoRepeatNGramLogitsProcessor,
  RepetitionPenaltyLogitsProcessor,
  TemperatureLogitsWarper,
  TopKLogitsWarper,
  TopPLogitsWarper,
} from "./logits-processors.ts";
export { settingsFile } from "./model-settings.ts";
export { type EarlyStopping, type GenerationOptions, generationOptionsSchema } from "./options.ts";
export {
  decoderOf,
  type PicturePrompt,
  type Prompt,
  type ReadPrompt,
  readPrompt,
  type TextCodec,
  taskOf,
  unknownTask,
} from "./prompts.ts";
export { argmax, Sampler, type SamplerOptions } from "./sampler.ts";
export { type StopReason, StopStringFilter, stopReason } from "./stopping.ts";
export {
  type Generated,
  type GeneratedAnswer,
  generationSettings,
  loadDecoder,
  TextGenerator,
  type TextGeneratorOptions,
} from "./text-generator.ts";
export { TextStreamer } from "./text-streamer.ts";

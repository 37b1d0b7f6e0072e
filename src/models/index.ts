export { BartDecoder, BartEncoder, BartForConditionalGeneration, BartModel } from "./bart.ts";
export { type BartSettings, readBartConfig, type TowerSettings } from "./bart-config.ts";
export { type CacheLayout, type CausalInputs, CausalLM, causalInputs, packedInputs } from "./causal-lm.ts";
export {
  type CausalBatch,
  type CausalLossOptions,
  causalFeeds,
  causalLabelledLoss,
  causalLoss,
  causalNoise,
} from "./causal-loss.ts";
export { Florence2ForConditionalGeneration } from "./florence2.ts";
export { type Florence2Settings, readFlorence2Config } from "./florence2-config.ts";
export { nativeFlorence2Config } from "./florence2-layout.ts";
export { nativeFlorence2Name, olderFlorence2Name } from "./florence2-names.ts";
export {
  type ImageInputs,
  type ImageSize,
  ImageTextToTextLM,
  type ImageTokens,
  imageInputs,
} from "./image-text-lm.ts";
export {
  type ImageTextBatch,
  imageRows,
  imageTextFeeds,
  imageTextLabelledLoss,
  imageTextLoss,
  imageTextNoise,
  type PicturedBatch,
} from "./image-text-loss.ts";
export { type LabelChunk, type LabelledLoss, labelInputNames, labelSizes } from "./labelled-loss.ts";
export { LanguageModel, type ModelOrigin } from "./language-model.ts";
export {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  AutoModelForSeq2SeqLM,
  loadLanguageModel,
} from "./load.ts";
export type { DropoutOptions } from "./loss.ts";
export { olderLayoutOf } from "./older-layouts.ts";
export {
  type BuiltModel,
  buildCausalLM,
  buildImageTextToText,
  buildLanguageModel,
  buildSeq2SeqLM,
  causalModelTypes,
  imageTextModelTypes,
  seq2seqModelTypes,
} from "./registry.ts";
export {
  type DecoderCacheLayout,
  type DecoderInputs,
  type DecoderKeyValues,
  type EncoderInputs,
  type Seq2SeqInputs,
  Seq2SeqLM,
  seq2seqInputs,
} from "./seq2seq-lm.ts";
export {
  type Seq2SeqBatch,
  seq2seqFeeds,
  seq2seqLabelledLoss,
  seq2seqLoss,
  seq2seqNoise,
  shiftTokensRight,
} from "./seq2seq-loss.ts";

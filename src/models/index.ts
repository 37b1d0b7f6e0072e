export { BartDecoder, BartEncoder, BartForConditionalGeneration, BartModel } from "./bart.ts";
export { type BartSettings, readBartConfig, type TowerSettings } from "./bart-config.ts";
export { type CacheLayout, type CausalInputs, CausalLM, causalInputs } from "./causal-lm.ts";
export { LanguageModel, type ModelOrigin } from "./language-model.ts";
export { AutoModelForCausalLM, AutoModelForSeq2SeqLM } from "./load.ts";
export { buildCausalLM, buildSeq2SeqLM, causalModelTypes, seq2seqModelTypes } from "./registry.ts";
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
  seq2seqLoss,
  seq2seqNoise,
  shiftTokensRight,
} from "./seq2seq-loss.ts";

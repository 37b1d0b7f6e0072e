import { input, symbol, type Value } from "../graph/index.ts";
import type { KeyValue } from "../nn/index.ts";
import { LanguageModel } from "./language-model.ts";

/** What an encoder reads: tokens, or embeddings that something else made of tokens and pictures. */
export type EncoderInputs = {
  readonly attentionMask: Value; // [batch, source], float32, 1 for real tokens
} & (
  | { readonly inputIds: Value } // [batch, source], int64
  | { readonly inputsEmbeds: Value } // [batch, source, hidden]
);

/** Keys and values of one decoder layer: of the tokens so far, and of the encoder's output. */
export type DecoderKeyValues = { readonly self: KeyValue; readonly cross: KeyValue };

/** What a decoder reads. */
export type DecoderInputs = {
  readonly decoderInputIds: Value; // [batch, target], int64
  readonly decoderAttentionMask: Value; // [batch, past + target], float32
  readonly attentionMask: Value; // [batch, source], float32, of the encoder's tokens
  /** Places of the tokens in the text, int64 [target]; by default those after the cached ones. */
  readonly places?: Value;
} & (
  | { readonly encoderHidden: Value; readonly past?: undefined } // [batch, source, hidden]
  /** Cached keys and values, one entry per layer; those of the encoder's output stand for the output itself. */
  | { readonly past: readonly DecoderKeyValues[]; readonly encoderHidden?: undefined }
);

/** Shape of the decoder's caches, for whoever feeds them. */
export type DecoderCacheLayout = {
  readonly layers: number;
  readonly heads: number;
  readonly headDim: number;
};

/** A model that writes a text about another: an encoder, and a decoder that attends to what it made. */
export abstract class Seq2SeqLM extends LanguageModel {
  abstract readonly decoderCacheLayout: DecoderCacheLayout;
  /** The token that decoding begins with. */
  abstract readonly decoderStartTokenId: number;

  /** Last hidden states of the encoder [batch, source, hidden]. */
  abstract encode(inputs: EncoderInputs): Value;

  /** Last hidden states of the decoder [batch, target, hidden], and keys and values of the tokens read, for the cache. */
  abstract decode(inputs: DecoderInputs): { hidden: Value; present: DecoderKeyValues[] };
}

/** Graph inputs of an encoder–decoder under transformers' names, as `encode` and `decode` take them. */
export type Seq2SeqInputs = {
  readonly inputIds: Value;
  readonly attentionMask: Value;
  readonly decoderInputIds: Value;
  readonly decoderAttentionMask: Value;
};

/** Inputs `input_ids`, `attention_mask`, `decoder_input_ids` and `decoder_attention_mask`; any batch, source and target. */
export function seq2seqInputs(): Seq2SeqInputs {
  const [batch, source, target] = [symbol("batch"), symbol("source"), symbol("target")];
  return {
    inputIds: input("input_ids", "int64", [batch, source]),
    attentionMask: input("attention_mask", "float32", [batch, source]),
    decoderInputIds: input("decoder_input_ids", "int64", [batch, target]),
    decoderAttentionMask: input("decoder_attention_mask", "float32", [batch, target]),
  };
}

import { type Dim, dimMultiply, input, op, type Value } from "../graph/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { type LabelledLoss, labelFeeds, labelledLoss } from "./labelled-loss.ts";
import { type DropoutOptions, IGNORED, randomBits, toMask } from "./loss.ts";
import { type Seq2SeqInputs, type Seq2SeqLM, seq2seqInputs } from "./seq2seq-lm.ts";

/** A batch of texts and what is to be written about them. Unlike a causal model's, labels are not shifted by the loss. */
export type Seq2SeqBatch = {
  readonly inputIds: Tensor<"int64">; // [batch, source]
  readonly attentionMask: Tensor<"int64">; // [batch, source], 1 for real tokens
  readonly labels: Tensor<"int64">; // [batch, target], -100 where nothing is learned
  /** What the decoder reads; by default the labels, shifted right. */
  readonly decoderInputIds?: Tensor<"int64">; // [batch, target]
  /** By default all ones, as in transformers: with padding on the right causality hides it. */
  readonly decoderAttentionMask?: Tensor<"int64">; // [batch, target]
};

/**
 * What a decoder reads to write `labels`: each row's start token, then its labels but the last, -100 as padding.
 * Source: transformers modeling_bart.py, shift_tokens_right.
 */
export function shiftTokensRight(
  { shape, data }: Tensor<"int64">,
  { padTokenId, decoderStartTokenId }: { padTokenId: number; decoderStartTokenId: number },
): Tensor<"int64"> {
  const width = shape[1]!;
  const shifted = data.map((_, i) => {
    if (i % width === 0) return BigInt(decoderStartTokenId);
    const before = data[i - 1]!;
    return before === IGNORED ? BigInt(padTokenId) : before;
  });
  return tensor("int64", shape, shifted);
}

/**
 * Loss of a batch: loss_scale · Σ over labelled places of -ln p(label). With a scale of 1 / labels it is transformers' loss.
 * Only labelled places reach the vocabulary product.
 * Inputs besides those of `seq2seqInputs`: those of `LabelledLoss`, and with dropout random int32 `dropout_noise` [batch, source]
 * and `decoder_dropout_noise` [batch, target].
 */
export const seq2seqLoss = (model: Seq2SeqLM, options: DropoutOptions = {}): Value =>
  seq2seqLabelledLoss(model, options).total;

/** The same loss as a function of the labelled rows. */
export const seq2seqLabelledLoss = (model: Seq2SeqLM, options: DropoutOptions = {}): LabelledLoss =>
  lossOf(model, { ...options, encode: (inputs) => model.encode(inputs) });

/** As `seq2seqLabelledLoss`, with an encoder's output [batch, source, hidden] made in another way, which may need more noise. */
export function lossOf(
  model: Seq2SeqLM,
  {
    dropout = false,
    modelDropout = true,
    encode,
    noise: more = [],
  }: DropoutOptions & { encode: (inputs: Seq2SeqInputs) => Value; noise?: readonly Value[] },
): LabelledLoss {
  const inputs = seq2seqInputs();
  const [batch, source] = inputs.inputIds.shape as [Dim, Dim];
  const target = inputs.decoderInputIds.shape[1]!;
  const rowsOf = (name: string, length: Dim): Value =>
    op.reshape(input(name, "int32", [batch, length]), [dimMultiply(batch, length)]);
  const encoderNoise = rowsOf("dropout_noise", source);
  const decoderNoise = rowsOf("decoder_dropout_noise", target);
  return labelledLoss(model, {
    noise: dropout ? [encoderNoise, decoderNoise, ...more] : [],
    ofLabels: dropout ? decoderNoise : undefined,
    ofModel: modelDropout,
    hidden: () => {
      const { hidden } = model.decode({ ...inputs, encoderHidden: encode(inputs) });
      return op.reshape(hidden, [dimMultiply(batch, target), hidden.shape[2]!]);
    },
  });
}

/** What the graph inputs of `seq2seqLoss` are fed; `lossScale` is by default 1 / labels. */
export function seq2seqFeeds(
  model: Seq2SeqLM,
  { inputIds, attentionMask, labels, decoderInputIds, decoderAttentionMask }: Seq2SeqBatch,
  { lossScale }: { lossScale?: number } = {},
): Record<string, Tensor> {
  const { padTokenId, decoderStartTokenId } = model;
  const places: bigint[] = [];
  for (const [i, label] of labels.data.entries()) if (label !== IGNORED) places.push(BigInt(i));
  const targets = [...labels.data].filter((label) => label !== IGNORED);
  return {
    input_ids: inputIds,
    attention_mask: toMask(attentionMask),
    decoder_input_ids: decoderInputIds ?? shiftTokensRight(labels, { padTokenId, decoderStartTokenId }),
    decoder_attention_mask: decoderAttentionMask
      ? toMask(decoderAttentionMask)
      : tensor("float32", labels.shape, new Float32Array(labels.data.length).fill(1)),
    ...labelFeeds(model.vocabSize, places, targets, lossScale ?? 1 / places.length),
  };
}

/** Random bits for a batch's dropout masks: a function of the seed alone, so that a resumed run repeats them. */
export const seq2seqNoise = ({ inputIds, labels }: Seq2SeqBatch, seed: number): Record<string, Tensor> =>
  randomBits({ dropout_noise: inputIds.shape, decoder_dropout_noise: labels.shape }, seed);

import { DataError } from "../errors.ts";
import { dimMultiply, input, op, symbol, type Value } from "../graph/index.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { type ImageSize, type ImageTextToTextLM, imageInputs } from "./image-text-lm.ts";
import type { LabelledLoss } from "./labelled-loss.ts";
import { type DropoutOptions, randomBits } from "./loss.ts";
import { lossOf, type Seq2SeqBatch, seq2seqFeeds } from "./seq2seq-loss.ts";

/** A batch of prompts with pictures of one size, and what is to be written about them. */
export type ImageTextBatch = Seq2SeqBatch & {
  /** [images, channels, height, width]: the pictures of all prompts, in the order of their tokens. */
  readonly pixelValues: Tensor<"float32">;
};

/** The same for a graph that need not read the pictures: their shape will do. */
export type PicturedBatch = Seq2SeqBatch & {
  readonly pixelValues: Tensor<"float32"> | Pick<Tensor<"float32">, "shape">;
};

/**
 * Loss of a batch of pictures of one size, as `seq2seqLoss` defines it.
 * Inputs besides those of `seq2seqLoss` and `imageInputs`: with dropout, random int32 `image_dropout_noise.<n>` [images, n]
 * for every n of the model's `imageNoiseRows`.
 */
export const imageTextLoss = (
  model: ImageTextToTextLM,
  options: DropoutOptions & { image: ImageSize },
): Value => imageTextLabelledLoss(model, options).total;

/** The same loss as a function of the labelled rows. */
export function imageTextLabelledLoss(
  model: ImageTextToTextLM,
  { image, ...options }: DropoutOptions & { image: ImageSize },
): LabelledLoss {
  const { pixelValues, imageRows: rows } = imageInputs(model, image);
  const images = symbol("images");
  const noise = model.imageNoiseRows(image).map((count) => {
    const perImage = input(noiseName(count), "int32", [images, count]);
    return op.reshape(perImage, [dimMultiply(images, count)]);
  });
  return lossOf(model, {
    ...options,
    noise,
    encode: ({ inputIds, attentionMask }) => {
      const features = model.imageFeatures(pixelValues);
      return model.encode({ inputsEmbeds: model.embed(inputIds, { features, rows }), attentionMask });
    },
  });
}

const noiseName = (rows: number): string => `image_dropout_noise.${rows}`;

/** Random bits for a batch's dropout masks and dropped paths, and those of its pictures: a function of the seed alone. */
export function imageTextNoise(
  model: ImageTextToTextLM,
  { inputIds, labels, pixelValues }: PicturedBatch,
  seed: number,
): Record<string, Tensor> {
  const [images, , height, width] = pixelValues.shape as [number, number, number, number];
  const ofImages = model
    .imageNoiseRows({ height, width })
    .map((count) => [noiseName(count), [images, count]]);
  const shapes = { dropout_noise: inputIds.shape, decoder_dropout_noise: labels.shape };
  return randomBits({ ...shapes, ...Object.fromEntries(ofImages) }, seed);
}

/**
 * What the graph inputs of `imageTextLoss` are fed.
 * @throws DataError if the prompts have not as many places for features as the pictures have features.
 */
export function imageTextFeeds(
  model: ImageTextToTextLM,
  { pixelValues, ...texts }: PicturedBatch,
  options?: { lossScale?: number },
): Record<string, Tensor> {
  const [images, , height, width] = pixelValues.shape as [number, number, number, number];
  const features = images * model.imageTokens({ height, width });
  return {
    ...seq2seqFeeds(model, texts, options),
    ...("data" in pixelValues && { pixel_values: pixelValues }),
    image_rows: imageRows(texts.inputIds, { imageTokenId: model.imageTokenId, features }),
  };
}

/**
 * The feature that takes each token's place: those of all pictures, one after the other, in the order of the image tokens of
 * all prompts; -1 for other tokens. Shape of `inputIds` and of the result: [batch, source].
 * @throws DataError if there are not as many image tokens as features.
 * Source: transformers Florence2Model.forward (masked_scatter).
 */
export function imageRows(
  { shape, data }: Tensor<"int64">,
  { imageTokenId, features }: { imageTokenId: number; features: number },
): Tensor<"int64"> {
  const token = BigInt(imageTokenId);
  let next = 0n;
  const rows = data.map((id) => (id === token ? next++ : -1n));
  if (next !== BigInt(features))
    throw new DataError(
      `The prompts hold ${next} image tokens (${imageTokenId}), and their pictures have ${features} features: each picture needs a token for each of its features.`,
      { code: "image-tokens", details: { tokens: Number(next), features, imageTokenId } },
    );
  return tensor("int64", shape, rows);
}

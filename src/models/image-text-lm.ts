import { type Dim, dimMultiply, input, op, symbol, type Value } from "../graph/index.ts";
import { Seq2SeqLM } from "./seq2seq-lm.ts";

/** Height and width of a picture or a feature map, in pixels or places. */
export type ImageSize = { readonly height: number; readonly width: number };

/** Features of pictures, and where they go. */
export type ImageTokens = {
  readonly features: Value; // [images, tokens, hidden]
  /**
   * For every token of the text the row of the flattened features that takes its place, -1 where the token stays:
   * [batch, source], int64.
   */
  readonly rows: Value;
};

/** An encoder–decoder that reads pictures in between its text. */
export abstract class ImageTextToTextLM extends Seq2SeqLM {
  /** The token that stands for one feature of a picture. It need not have an embedding. */
  abstract readonly imageTokenId: number;
  /** Number of colour channels. */
  abstract readonly imageChannels: number;

  /** Embeddings of pictures [images, tokens, hidden]. Shape of `pixels`: [images, channels, height, width], one size per graph. */
  abstract imageFeatures(pixels: Value): Value;

  /** Number of features of a picture of a size. @throws UnsupportedModelError for a size that the model cannot read. */
  abstract imageTokens(size: ImageSize): number;

  /**
   * Numbers of rows that what is dropped in training has per picture: dropouts and dropped paths draw from noise
   * [images · rows], one for each of these numbers.
   */
  abstract imageNoiseRows(size: ImageSize): readonly number[];

  /** Embeddings of tokens [batch, source, hidden]. */
  protected abstract embedTokens(inputIds: Value): Value;

  /** What the encoder takes as `inputsEmbeds`, [batch, source, hidden]. Shape of `inputIds`: [batch, source]. */
  embed(inputIds: Value, { features, rows }: ImageTokens): Value {
    const [images, tokens, hidden] = features.shape as [Dim, Dim, Dim];
    const isImage = op.greaterOrEqual(rows, 0);
    const text = this.embedTokens(op.where(isImage, 0, inputIds));
    const flat = op.reshape(features, [dimMultiply(images, tokens), hidden]);
    return op.where(op.unsqueeze(isImage, -1), op.gather(flat, op.where(isImage, rows, 0)), text);
  }
}

/** Graph inputs for pictures of one size. */
export type ImageInputs = { readonly pixelValues: Value; readonly imageRows: Value };

/**
 * Inputs `pixel_values` [images, channels, height, width] and `image_rows` [batch, source], for `imageFeatures` and `embed`.
 * Any number of pictures; the size is part of the graph.
 */
export function imageInputs(model: ImageTextToTextLM, { height, width }: ImageSize): ImageInputs {
  const size = [symbol("images"), model.imageChannels, height, width];
  return {
    pixelValues: input("pixel_values", "float32", size),
    imageRows: input("image_rows", "int64", [symbol("batch"), symbol("source")]),
  };
}

import { DataError } from "../errors.ts";
import { formatShape } from "../graph/index.ts";
import type { ImageSize, ImageTextToTextLM } from "../models/index.ts";
import { numel, type Tensor, tensor } from "../tensor/index.ts";

/** Preprocessed pictures as [images, channels, height, width]. @throws DataError for another shape */
export function picturesOf(
  pixelValues: Tensor<"float32">,
  { imageChannels }: ImageTextToTextLM,
): Tensor<"float32"> {
  const { shape, data } = pixelValues;
  const whole = shape.length === 3 ? [1, ...shape] : shape;
  if (whole.length !== 4 || whole[1] !== imageChannels || data.length !== numel(whole) || data.length === 0)
    throw new DataError(
      `A picture's pixels are [${imageChannels}, height, width], or [images, ${imageChannels}, height, width] for several; got ${formatShape(shape)} with ${data.length} values.`,
      { code: "bad-pixels", details: { shape, imageChannels } },
    );
  return tensor("float32", whole, data);
}

/** Size of pictures [images, channels, height, width]. */
export const sizeOf = ({ shape }: Tensor): ImageSize => ({ height: shape[2]!, width: shape[3]! });

/** Pictures of one size, one after the other. */
export function stackPictures(pictures: readonly Tensor<"float32">[]): Tensor<"float32"> {
  if (pictures.length === 1) return pictures[0]!;
  const [, ...rest] = pictures[0]!.shape;
  const images = pictures.reduce((sum, { shape }) => sum + shape[0]!, 0);
  const data = new Float32Array(images * numel(rest));
  let at = 0;
  for (const picture of pictures) {
    data.set(picture.data, at);
    at += picture.data.length;
  }
  return tensor("float32", [images, ...rest], data);
}

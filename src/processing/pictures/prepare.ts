import { dataError, type Place } from "../../data/problem.ts";
import type { ImageSource } from "../../data/types.ts";
import { DataError } from "../../errors.ts";
import type { Tensor } from "../../tensor/index.ts";
import type { ImageProcessor } from "../images/image-processor.ts";
import { checkImage, type ImageInput, type ReadImageOptions, readImage } from "../images/read-image.ts";

/** How pictures of rows become pixel values. */
export type Preparation = {
  imageProcessor: ImageProcessor;
  /** Pixels above which a picture is refused. */
  maxPixels: number;
};

/** A row's picture as `readImage` takes it, with its name for messages. */
function inputOf(image: ImageSource): { input: ImageInput; name?: string } {
  if ("path" in image) return { input: image.path };
  return "url" in image ? { input: image.url } : { input: image.bytes, name: image.name };
}

const optionsOf = (name: string | undefined, place: Place, maxPixels: number): ReadImageOptions => ({
  ...(name !== undefined && { name }),
  place,
  maxPixels,
});

/** A row's picture, decoded and preprocessed: [3, H, W]. @throws DataError that names the row */
export async function preparePicture(
  image: ImageSource,
  place: Place,
  { imageProcessor, maxPixels }: Preparation,
): Promise<Tensor<"float32">> {
  const { input, name } = inputOf(image);
  const pixels = await readImage(input, optionsOf(name, place, maxPixels));
  try {
    return imageProcessor.preprocess(pixels);
  } catch (error) {
    throw atRow(error, place);
  }
}

/** The checks of a row's picture by its first bytes. @throws DataError that names the row */
export async function checkRowPicture(
  image: ImageSource,
  place: Place,
  { maxPixels }: Pick<Preparation, "maxPixels">,
): Promise<void> {
  const { input, name } = inputOf(image);
  await checkImage(input, optionsOf(name, place, maxPixels));
}

/** A DataError that does not say where, with the place; anything else as it is. */
export const atRow = (error: unknown, place: Place): unknown =>
  error instanceof DataError && error.details["file"] === undefined
    ? dataError(error.code, place, error.message, error.details, error)
    : error;

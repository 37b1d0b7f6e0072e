import type { FileStore } from "../../data/index.ts";
import type { Place } from "../../data/problem.ts";
import { DataError } from "../../errors.ts";
import { type Tensor, tensor } from "../../tensor/index.ts";
import { type JsonObject, openFiles, readJsonObject } from "../json-file.ts";
import {
  clipDefaults,
  type ImageProcessorOptions,
  parseImageProcessor,
  type ResizeRule,
} from "./image-options.ts";
import { resize } from "./resample.ts";
import type { RgbImage } from "./rgb-image.ts";

/** The JSON of an image processor and the file it stands in. */
export type ImageProcessorJson = { json: JsonObject; place: Place };

/**
 * Decoded pictures to pixel values, with the results of transformers 5.18's CLIPImageProcessorPil: resize, crop,
 * rescale, normalise, in this order.
 */
export class ImageProcessor {
  readonly options: Readonly<ImageProcessorOptions>;
  /** By channel, the pixel value of each of the 256 samples. */
  readonly #values: readonly Float32Array[];

  /** What is left out is as in CLIP's processor. */
  constructor(options: Partial<ImageProcessorOptions> = {}) {
    this.options = { ...clipDefaults, ...options };
    this.#values = [0, 1, 2].map((channel) => pixelValues(this.options, channel));
  }

  /**
   * Read processor_config.json's `image_processor`, else preprocessor_config.json.
   * @throws DataError "no-processor", "bad-processor", "bad-json"
   */
  static async fromPretrained(location: string | FileStore): Promise<ImageProcessor> {
    const { json, place } = await readImageProcessorJson(await openFiles(location));
    return new ImageProcessor(parseImageProcessor(json, place));
  }

  /** Height and width of the pixel values of a picture. */
  outputSize({ width, height }: { width: number; height: number }): { height: number; width: number } {
    const { doCenterCrop, cropSize, doResize, size } = this.options;
    if (doCenterCrop) return cropSize;
    return doResize ? resizedSize(height, width, size) : { height, width };
  }

  /**
   * Pixel values of one picture, [3, H, W].
   * @throws DataError "empty-image" if nothing is left of a very long one.
   */
  preprocess(image: RgbImage): Tensor<"float32"> {
    const { height, width } = this.outputSize(image);
    const values = new Float32Array(3 * height * width);
    this.preprocessInto(image, values);
    return tensor("float32", [3, height, width], values);
  }

  /**
   * Pixel values of pictures, [N, 3, H, W].
   * @throws DataError "uneven-images" if they come out in different sizes.
   */
  preprocessBatch(images: readonly RgbImage[]): Tensor<"float32"> {
    const sizes = images.map((image) => this.outputSize(image));
    const { height, width } = sizes[0] ?? { height: 0, width: 0 };
    const odd = sizes.findIndex((size) => size.height !== height || size.width !== width);
    if (odd >= 0)
      throw new DataError(
        `Picture 1 comes out as ${width} × ${height} pixels and picture ${odd + 1} as ${sizes[odd]!.width} × ${sizes[odd]!.height}, ` +
          'so they do not fit into one batch. Give "size" a height and a width, or process them one by one.',
        { code: "uneven-images", details: { sizes } },
      );
    const each = 3 * height * width;
    const values = new Float32Array(images.length * each);
    images.forEach((image, i) => {
      this.preprocessInto(image, values.subarray(i * each, (i + 1) * each));
    });
    return tensor("float32", [images.length, 3, height, width], values);
  }

  /** Write pixel values, [3, H, W], into `output`, whose length is 3·H·W of `outputSize`. */
  preprocessInto(image: RgbImage, output: Float32Array): void {
    const { doResize, size, resample, doCenterCrop, cropSize } = this.options;
    let result = image;
    if (doResize) {
      const { height, width } = resizedSize(image.height, image.width, size);
      if (height === 0 || width === 0)
        throw new DataError(
          `A picture of ${image.width} × ${image.height} pixels would become ${width} × ${height} pixels. Crop it, or leave it out.`,
          { code: "empty-image", details: { from: [image.width, image.height], to: [width, height] } },
        );
      result = resize(image, width, height, resample);
    }
    if (doCenterCrop) result = centerCrop(result, cropSize.height, cropSize.width);
    const plane = result.width * result.height;
    const { data } = result;
    const [red, green, blue] = this.#values as [Float32Array, Float32Array, Float32Array];
    for (let i = 0, at = 0; i < plane; i++, at += 3) {
      output[i] = red[data[at]!]!;
      output[plane + i] = green[data[at + 1]!]!;
      output[2 * plane + i] = blue[data[at + 2]!]!;
    }
  }
}

/** @throws DataError "no-processor", "bad-json" */
export async function readImageProcessorJson(store: FileStore): Promise<ImageProcessorJson> {
  const nested = (await readJsonObject(store, "processor_config.json"))?.["image_processor"];
  if (typeof nested === "object" && nested !== null)
    return { json: nested as JsonObject, place: { file: `${store.name}/processor_config.json` } };
  const json = await readJsonObject(store, "preprocessor_config.json");
  if (json !== undefined) return { json, place: { file: `${store.name}/preprocessor_config.json` } };
  throw new DataError(
    `${store.name}: preprocessor_config.json is missing, which says how pictures are prepared. Copy it from the model's page.`,
    { code: "no-processor", details: { store: store.name, file: "preprocessor_config.json" } },
  );
}

/** (s · factor - mean) / std of each sample s; factors and roundings to float32 as in the reference. */
function pixelValues(options: ImageProcessorOptions, channel: number): Float32Array {
  const { doRescale, rescaleFactor, doNormalize, imageMean, imageStd } = options;
  const mean = Math.fround(imageMean[channel]!);
  const std = Math.fround(imageStd[channel]!);
  return Float32Array.from({ length: 256 }, (_, sample) => {
    const value = doRescale ? Math.fround(sample * rescaleFactor) : sample;
    return doNormalize ? Math.fround(value - mean) / std : value;
  });
}

function resizedSize(height: number, width: number, size: ResizeRule): { height: number; width: number } {
  if ("height" in size) return size;
  if ("maxHeight" in size) {
    const scale = Math.min(size.maxHeight / height, size.maxWidth / width);
    return { height: Math.trunc(height * scale), width: Math.trunc(width * scale) };
  }
  const { longestEdge } = size;
  const [short, long] = [Math.min(height, width), Math.max(height, width)];
  let edge = size.shortestEdge;
  let exact = edge;
  if (longestEdge !== undefined && (long / short) * edge > longestEdge) {
    exact = (longestEdge * short) / long;
    edge = roundHalfEven(exact);
    if (short === edge) return { height, width };
  }
  const other = Math.trunc((exact * long) / short);
  return width <= height ? { height: other, width: edge } : { height: edge, width: other };
}

/** As Python's round(). */
function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The middle of a picture; where the picture is smaller, black surrounds it. */
function centerCrop(image: RgbImage, height: number, width: number): RgbImage {
  if (image.height === height && image.width === width) return image;
  const output = new Uint8Array(height * width * 3);
  // Negative where the crop is larger.
  const top = Math.floor((image.height - height) / 2);
  const left = Math.floor((image.width - width) / 2);
  const from = Math.max(left, 0);
  const to = Math.min(left + width, image.width);
  for (let y = Math.max(top, 0); y < Math.min(top + height, image.height); y++) {
    const row = image.data.subarray((y * image.width + from) * 3, (y * image.width + to) * 3);
    output.set(row, ((y - top) * width + from - left) * 3);
  }
  return { height, width, data: output };
}

import type { Sharp } from "sharp";
import { openFile } from "../../data/node.ts";
import { isGraftError } from "../../errors.ts";
import { checkSize, type Decode } from "./decode.ts";
import { colourUndrawnPixels, readGifFrame } from "./gif-frame.ts";
import { isReducedAvif } from "./image-header.ts";
import { orient, xmpOrientation } from "./orientation.ts";
import { type ImagePlace, imageError } from "./problem.ts";
import type { RgbImage } from "./rgb-image.ts";
import { type Samples, samplesToRgb } from "./to-rgb.ts";

/** Larger files are no pictures that anyone trains on; the whole file is held in memory. */
const MAX_FILE_BYTES = 1 << 30;

/** The bytes of a picture file, or its first ones. @throws DataError "unreadable", "image-too-large" */
export async function readPictureFile(
  path: string,
  picture: ImagePlace,
  limit = MAX_FILE_BYTES,
): Promise<Uint8Array> {
  let file: Awaited<ReturnType<typeof openFile>>;
  try {
    file = await openFile(path);
  } catch (error) {
    if (!isGraftError(error) || picture.place === undefined) throw error;
    const reason = error.message.startsWith(`${path}: `)
      ? error.message.slice(path.length + 2)
      : error.message;
    throw imageError("unreadable", picture, reason, { errno: error.details["errno"] }, error);
  }
  try {
    if (file.size > MAX_FILE_BYTES)
      throw imageError(
        "image-too-large",
        picture,
        `the file has ${file.size} bytes, more than the limit of ${MAX_FILE_BYTES}. Scale the picture down.`,
      );
    return await file.read(0, Math.min(file.size, limit));
  } finally {
    await file.close();
  }
}

type SharpModule = typeof import("sharp");
type SharpFactory = SharpModule["default"];
let loading: Promise<SharpFactory> | undefined;

/** @throws DataError "no-image-library" */
async function loadSharp(picture: ImagePlace): Promise<SharpFactory> {
  loading ??= import("sharp").then((module) => module.default);
  try {
    return await loading;
  } catch (cause) {
    loading = undefined;
    throw imageError(
      "no-image-library",
      picture,
      "pictures are decoded by the package sharp, which cannot be loaded. Install it: npm install sharp",
      {},
      cause,
    );
  }
}

const typed = {
  uchar: Uint8Array,
  ushort: Uint16Array,
  short: Int16Array,
  uint: Uint32Array,
  int: Int32Array,
  float: Float32Array,
  double: Float64Array,
} as const;

/** Decode with sharp (libvips), its colour management off; samples become RGB by Pillow's rules. */
export const decode: Decode = async (bytes, header, { maxPixels, picture }) => {
  if (header.format === "avif" && isReducedAvif(bytes))
    throw imageError(
      "unsupported-image",
      picture,
      "the AVIF file has reduced colour (4:2:0 or 4:2:2) or more than 8 bits, of which sharp makes other pixels than Pillow. Convert it to PNG.",
    );
  const sharp = await loadSharp(picture);
  // "error": a file that is cut off or damaged is refused; bytes that decoders skip over are not. As Pillow.
  const open = (): Sharp => sharp(bytes, { ignoreIcc: true, failOn: "error", limitInputPixels: false });
  const metadata = await open().metadata();
  const { width, height, depth, space } = metadata;
  checkSize(width, height, maxPixels, picture);
  const samples = async (pipeline: Sharp): Promise<Samples> => {
    const { data, info } = await pipeline.raw({ depth }).toBuffer({ resolveWithObject: true });
    const Samples = typed[depth as keyof typeof typed];
    if (Samples === undefined) throw unsupportedLayout(picture, metadata);
    const length = data.byteLength / Samples.BYTES_PER_ELEMENT;
    const aligned = data.byteOffset % Samples.BYTES_PER_ELEMENT === 0;
    const { buffer, byteOffset } = aligned ? data : new Uint8Array(data);
    return { data: new Samples(buffer as ArrayBuffer, byteOffset, length), channels: info.channels };
  };
  let rgb: Uint8Array | undefined;
  if (header.format === "gif") {
    const frame = readGifFrame(bytes);
    if (frame?.palette === undefined)
      throw imageError("unsupported-image", picture, "the GIF file has no colour table. Convert it to PNG.");
    const rgba = await samples(open().ensureAlpha());
    colourUndrawnPixels(rgba.data as Uint8Array, width, frame);
    rgb = samplesToRgb(rgba);
  } else if (space === "cmyk")
    rgb = samplesToRgb({
      ...(await samples(open().pipelineColourspace("cmyk").toColourspace("cmyk"))),
      cmyk: true,
    });
  else if (space !== "srgb" && space !== "b-w" && space !== "rgb16" && space !== "grey16")
    throw unsupportedLayout(picture, metadata);
  else if (depth === "uchar") rgb = samplesToRgb(await samples(open().removeAlpha()));
  else rgb = samplesToRgb(await samples(open().pipelineColourspace(space).toColourspace(space)));
  if (rgb === undefined || rgb.length !== width * height * 3) throw unsupportedLayout(picture, metadata);
  const image: RgbImage = { width, height, data: rgb };
  const orientation = metadata.orientation ?? (metadata.xmp && xmpOrientation(metadata.xmp));
  return orientation === undefined ? image : orient(image, orientation);
};

const unsupportedLayout = (picture: ImagePlace, layout: { space: string; channels: number; depth: string }) =>
  imageError(
    "unsupported-image",
    picture,
    `its pixels are ${layout.space} with ${layout.channels} channels of ${layout.depth}, which cannot be read. Convert it to an RGB PNG.`,
    { space: layout.space, channels: layout.channels, depth: layout.depth },
  );

import type { Place } from "../../data/problem.ts";
import { isGraftError } from "../../errors.ts";
import { checkSize } from "./decode.ts";
import { describeForeignFile, type ImageHeader, readImageHeader } from "./image-header.ts";
import { type ImagePlace, imageError } from "./problem.ts";
import { isRgbImage, type RgbImage } from "./rgb-image.ts";

/** A picture: the bytes of a file, a Blob, a data URL, a path (in Node), or one that is already decoded. */
export type ImageInput = RgbImage | Uint8Array | ArrayBuffer | Blob | string;

export type ReadImageOptions = {
  /** Pixels above which a picture is refused. Default: Pillow's limit. */
  maxPixels?: number;
  /** What to call the picture in messages. Default: its path, else "image". */
  name?: string;
  /** The row that names the picture, for messages. */
  place?: Place;
};

/** Beyond twice its `MAX_IMAGE_PIXELS` Pillow raises DecompressionBombError. */
export const MAX_PIXELS = 2 * Math.floor((1024 * 1024 * 1024) / 4 / 3);

/**
 * Read a picture as the reference does, `exif_transpose(Image.open(file)).convert("RGB")` in Pillow: the first frame
 * of an animation, alpha dropped, no colour profile applied. Reads JPEG, PNG, WebP, GIF, TIFF and (in Node, at
 * full colour resolution only) AVIF; what a file is, its bytes decide and not its name.
 * @throws DataError that names the picture and its row: "unreadable", "empty-image", "not-an-image",
 * "unsupported-image", "image-too-large", "broken-image", "no-image-library", "bad-data-url".
 */
export async function readImage(input: ImageInput, options: ReadImageOptions = {}): Promise<RgbImage> {
  const { maxPixels = MAX_PIXELS, place } = options;
  const name = options.name ?? nameOf(input);
  const picture: ImagePlace = place === undefined ? { name } : { name, place };
  if (isRgbImage(input)) return checkDecoded(input, picture);
  const bytes = await bytesOf(input, picture);
  const header = checkHeader(bytes, picture, maxPixels);
  try {
    const decode = isNode() ? (await import("./node.ts")).decode : (await import("./browser.ts")).decode;
    return await decode(bytes, header, { maxPixels, picture });
  } catch (error) {
    if (isGraftError(error)) throw error;
    throw brokenImage(picture, header, error);
  }
}

/**
 * What can be said of a picture by its first bytes: that it is there, that it is one, and that it has a sensible size. Of a
 * file no more is read. What is damaged further on passes.
 * @throws DataError as `readImage`, but "broken-image" and "no-image-library"
 */
export async function checkImage(input: ImageInput, options: ReadImageOptions = {}): Promise<void> {
  const { maxPixels = MAX_PIXELS, place, name = nameOf(input) } = options;
  const picture: ImagePlace = place === undefined ? { name } : { name, place };
  if (isRgbImage(input)) checkDecoded(input, picture);
  else checkHeader(await bytesOf(input, picture, HEADER_BYTES), picture, maxPixels);
}

/** In which formats tell their size, but for JPEG files with more metadata. */
const HEADER_BYTES = 1 << 16;

export const isNode = (): boolean =>
  (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined;

function brokenImage(picture: ImagePlace, { format }: ImageHeader, cause: unknown) {
  const reason = (cause instanceof Error ? cause.message : String(cause))
    .split("\n")[0]!
    .trim()
    .replace(/[:.]$/, "");
  return imageError(
    "broken-image",
    picture,
    `the ${format.toUpperCase()} file is cut off or damaged (${reason}). Copy it again, or leave it out.`,
    { format },
    cause,
  );
}

function checkDecoded(image: RgbImage, picture: ImagePlace): RgbImage {
  const { width, height, data } = image;
  const sized = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (sized && data.length === width * height * 3) return image;
  throw imageError(
    "empty-image",
    picture,
    `a decoded picture of ${width} × ${height} has ${width} · ${height} · 3 bytes, got ${data.length}. Give RGB rows without padding.`,
  );
}

function checkHeader(bytes: Uint8Array, picture: ImagePlace, maxPixels: number): ImageHeader {
  if (bytes.length === 0)
    throw imageError("empty-image", picture, "the file is empty. Copy it again, or leave it out.");
  const header = readImageHeader(bytes);
  if (header === undefined) {
    const { what, remedy, known } = describeForeignFile(bytes);
    throw imageError(known ? "unsupported-image" : "not-an-image", picture, `the file ${what}. ${remedy}`);
  }
  const { width, height } = header;
  if (width === 0 || height === 0)
    throw imageError(
      "empty-image",
      picture,
      `the picture is ${width} × ${height} pixels. Give one with pixels.`,
    );
  if (width !== undefined && height !== undefined) checkSize(width, height, maxPixels, picture);
  return header;
}

function nameOf(input: ImageInput): string {
  if (typeof input === "string") return /^data:/i.test(input) ? `${input.slice(0, 30)}…` : input;
  return typeof File !== "undefined" && input instanceof File ? input.name : "image";
}

/** @param limit for files: read no more than so many bytes from the beginning */
async function bytesOf(
  input: Exclude<ImageInput, RgbImage>,
  picture: ImagePlace,
  limit?: number,
): Promise<Uint8Array> {
  if (typeof input !== "string") {
    if (input instanceof Uint8Array) return input;
    if (!(input instanceof Blob)) return new Uint8Array(input);
    return new Uint8Array(await input.slice(0, limit).arrayBuffer());
  }
  if (/^data:/i.test(input)) return dataUrlBytes(input, picture);
  if (/^https?:/i.test(input))
    throw imageError(
      "unreadable",
      picture,
      "pictures are read from files, not from addresses. Download it, and give its path or bytes.",
    );
  if (!isNode())
    throw imageError(
      "unreadable",
      picture,
      "a path can be read only in Node. Give the picture's bytes or a Blob.",
    );
  return (await import("./node.ts")).readPictureFile(input, picture, limit);
}

/** The bytes of a `data:image/…;base64,` URL. */
function dataUrlBytes(url: string, picture: ImagePlace): Uint8Array {
  const match = /^data:(?:[^,;]*)(?:;[^,;]*)*?;base64,/i.exec(url);
  const bad = (reason: string, cause?: unknown) =>
    imageError(
      "bad-data-url",
      picture,
      `${reason}. Write data:image/png;base64, and the encoded file.`,
      {},
      cause,
    );
  if (match === null) throw bad("the data URL is not base64");
  try {
    return Uint8Array.from(atob(url.slice(match[0].length)), (character) => character.charCodeAt(0));
  } catch (cause) {
    throw bad("the data URL's base64 is malformed", cause);
  }
}

import type { ImageHeader } from "./image-header.ts";
import { type ImagePlace, imageError } from "./problem.ts";
import type { RgbImage } from "./rgb-image.ts";

/** Turns the bytes of a file whose header has been checked into pixels, orientation applied. */
export type Decode = (
  bytes: Uint8Array,
  header: ImageHeader,
  options: { maxPixels: number; picture: ImagePlace },
) => Promise<RgbImage>;

/** @throws DataError "image-too-large" */
export function checkSize(width: number, height: number, maxPixels: number, picture: ImagePlace): void {
  if (width * height > maxPixels)
    throw imageError(
      "image-too-large",
      picture,
      `the picture is ${width} × ${height} pixels, more than the limit of ${maxPixels}. Scale it down.`,
      { width, height, maxPixels },
    );
}

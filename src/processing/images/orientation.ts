import type { RgbImage } from "./rgb-image.ts";

/**
 * Turn a picture as its EXIF orientation says, as Pillow's `ImageOps.exif_transpose`: 2 mirrored, 3 half turn,
 * 4 upside down, 5 transposed, 6 a quarter turn clockwise, 7 transposed on the other diagonal, 8 a quarter turn
 * counter-clockwise; any other value leaves it as it is.
 */
export function orient(image: RgbImage, orientation: number): RgbImage {
  const { width: w, height: h, data } = image;
  // Input pixel of output pixel 0, and how it moves with x and y.
  const last = w * h - 1;
  const moves: Record<number, [start: number, alongX: number, alongY: number]> = {
    2: [w - 1, -1, w],
    3: [last, -1, -w],
    4: [last - (w - 1), 1, -w],
    5: [0, w, 1],
    6: [last - (w - 1), -w, 1],
    7: [last, -w, -1],
    8: [w - 1, w, -1],
  };
  const move = moves[orientation];
  if (move === undefined) return image;
  const [start, alongX, alongY] = move;
  const [width, height] = orientation >= 5 ? [h, w] : [w, h];
  const output = new Uint8Array(data.length);
  let at = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0, from = (start + y * alongY) * 3; x < width; x++, from += alongX * 3) {
      output[at++] = data[from]!;
      output[at++] = data[from + 1]!;
      output[at++] = data[from + 2]!;
    }
  return { width, height, data: output };
}

/** The orientation that XMP metadata states, which counts where EXIF states none. */
export function xmpOrientation(xmp: Uint8Array | string): number | undefined {
  const text = typeof xmp === "string" ? xmp : new TextDecoder("latin1").decode(xmp);
  const match = /tiff:Orientation(?:="|>)([0-9])/.exec(text);
  return match ? Number(match[1]) : undefined;
}

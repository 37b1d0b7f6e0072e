/** A decoded picture: 8-bit RGB, row by row, three bytes a pixel. */
export type RgbImage = {
  readonly width: number;
  readonly height: number;
  /** [height, width, 3] */
  readonly data: Uint8Array;
};

/** Whether a value is a decoded picture, and not the bytes of a file. */
export const isRgbImage = (value: unknown): value is RgbImage =>
  typeof value === "object" &&
  value !== null &&
  "width" in value &&
  "height" in value &&
  "data" in value &&
  value.data instanceof Uint8Array;

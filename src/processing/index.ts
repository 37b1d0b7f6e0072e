export { type ImageInput, MAX_PIXELS, type ReadImageOptions, readImage } from "./images/read-image.ts";
export { resampleFilters, resize } from "./images/resample.ts";
export type { RgbImage } from "./images/rgb-image.ts";

import { DataError } from "../../errors.ts";

/** Locations are whole numbers below this, in each direction. */
export const LOCATION_BINS = 1000;

/** Width and height of a picture in pixels, in this order. */
export type ImageSize = readonly [width: number, height: number];

/** Pixels of a bin in float32: x for even positions, y for odd ones. */
const binSize = ([width, height]: ImageSize): [number, number] => [
  Math.fround(width / LOCATION_BINS),
  Math.fround(height / LOCATION_BINS),
];

/**
 * Pixels to location bins, ⌊x / (width / 1000)⌋ held to 0…999, in float32 as the reference. Coordinates alternate x, y:
 * points, boxes and polygons alike.
 */
export function quantizeLocations(coordinates: readonly number[], size: ImageSize): number[] {
  const bins = binSize(size);
  return coordinates.map((value, i) => {
    const bin = Math.floor(Math.fround(Math.fround(value) / bins[i % 2]!));
    return Math.min(Math.max(bin, 0), LOCATION_BINS - 1);
  });
}

/** Location bins to whole pixels, those of the bins' centres: (x + ½) · width / 1000 towards zero, in float32. */
export function dequantizeLocations(locations: readonly number[], size: ImageSize): number[] {
  const bins = binSize(size);
  return locations.map((value, i) => {
    const pixel = Math.trunc(Math.fround(Math.fround(Math.fround(value) + 0.5) * bins[i % 2]!));
    return Math.abs(pixel) < 2 ** 31 ? pixel : -(2 ** 31); // as the reference's conversion to int32
  });
}

/** `<loc_52><loc_332>…`, as prompts such as `<REGION_TO_CATEGORY>` take a box in pixels, and as answers give it. */
export const formatLocations = (coordinates: readonly number[], size: ImageSize): string =>
  quantizeLocations(coordinates, size)
    .map((bin) => `<loc_${bin}>`)
    .join("");

/** @throws DataError "bad-image-size" */
export function checkImageSize(size: ImageSize | undefined, task: string): ImageSize {
  if (size?.length === 2 && size.every((edge) => Number.isFinite(edge) && edge > 0)) return size;
  throw new DataError(
    `The answer to ${task} has locations, which need the picture's size; got ${JSON.stringify(size)}. Give imageSize: [width, height].`,
    { code: "bad-image-size", details: { task, imageSize: size } },
  );
}

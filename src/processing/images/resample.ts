import type { RgbImage } from "./rgb-image.ts";

/** Pillow's resampling filters by their numbers, as `resample` in preprocessor_config.json. */
export const resampleFilters = {
  nearest: 0,
  lanczos: 1,
  bilinear: 2,
  bicubic: 3,
  box: 4,
  hamming: 5,
} as const;

/** Weight by distance from the centre, and how far it reaches, in pixels of the coarser grid. */
type Filter = { support: number; weight(x: number): number };

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

const filters: Readonly<Record<number, Filter>> = {
  [resampleFilters.box]: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  [resampleFilters.bilinear]: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  // Its constants are single-precision in Pillow.
  [resampleFilters.hamming]: {
    support: 1,
    weight: (x) =>
      Math.abs(x) >= 1
        ? 0
        : sinc(Math.abs(x)) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI)),
  },
  // Keys' cubic convolution with a = -1/2.
  [resampleFilters.bicubic]: {
    support: 2,
    weight(x) {
      const a = -0.5;
      const d = Math.abs(x);
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
  [resampleFilters.lanczos]: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Fixed-point bits of a weight: 32, less 8 for the sample and 2 for weights whose absolute sum exceeds one. */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** For each output position: the first input position, how many follow, and their fixed-point weights. */
type Weights = { first: Int32Array; count: Int32Array; weights: Int32Array; stride: number };

/** Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`. */
function weightsFor(filter: Filter, inputSize: number, outputSize: number): Weights {
  const scale = inputSize / outputSize;
  const filterScale = Math.max(scale, 1); // when shrinking, the filter widens: antialiasing
  const support = filter.support * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outputSize);
  const count = new Int32Array(outputSize);
  const weights = new Int32Array(outputSize * stride);
  const exact = new Float64Array(stride);
  const step = 1 / filterScale;
  for (let i = 0; i < outputSize; i++) {
    const center = (i + 0.5) * scale;
    const from = Math.max(Math.trunc(center - support + 0.5), 0);
    const taps = Math.min(Math.trunc(center + support + 0.5), inputSize) - from;
    let sum = 0;
    for (let j = 0; j < taps; j++) {
      exact[j] = filter.weight((j + from - center + 0.5) * step);
      sum += exact[j]!;
    }
    for (let j = 0; j < taps; j++) {
      const weight = sum === 0 ? exact[j]! : exact[j]! / sum;
      weights[i * stride + j] = Math.trunc(weight * (1 << PRECISION_BITS) + (weight < 0 ? -0.5 : 0.5));
    }
    first[i] = from;
    count[i] = taps;
  }
  return { first, count, weights, stride };
}

/** A fixed-point sum as a byte. */
const toByte = (sum: number): number => {
  const value = sum >> PRECISION_BITS;
  return Math.min(Math.max(value, 0), 255);
};

/**
 * Resize a picture as Pillow's `Image.resize((width, height), resample)` does, bit for bit: a horizontal and then a
 * vertical convolution with 22-bit fixed-point weights, each rounded to bytes; the filter widens when shrinking.
 * Source: Pillow 12, src/libImaging/Resample.c and, for nearest, Geometry.c (ImagingScaleAffine).
 * @param resample Pillow's number of the filter
 */
export function resize(image: RgbImage, width: number, height: number, resample: number): RgbImage {
  if (image.width === width && image.height === height) return image;
  if (resample === resampleFilters.nearest) return resizeNearest(image, width, height);
  const filter = filters[resample];
  if (filter === undefined) throw new RangeError(`There is no resampling filter ${resample}; give 0 to 5.`);
  const vertical = image.height === height ? undefined : weightsFor(filter, image.height, height);
  // Rows that no output row needs are left out of the horizontal pass.
  const firstRow = vertical?.first[0] ?? 0;
  const lastRow = vertical ? vertical.first[height - 1]! + vertical.count[height - 1]! : image.height;
  let rows: Uint8Array = image.data.subarray(firstRow * image.width * 3, lastRow * image.width * 3);
  if (image.width !== width)
    rows = resizeRows(rows, image.width, width, lastRow - firstRow, weightsFor(filter, image.width, width));
  const data = vertical ? resizeColumns(rows, width, height, vertical, firstRow) : rows;
  return { width, height, data };
}

// Sums are kept as doubles, in which they are exact and which V8 adds faster than wrapping integers.

function resizeRows(
  input: Uint8Array,
  inputWidth: number,
  width: number,
  height: number,
  { first, count, weights, stride }: Weights,
): Uint8Array {
  const output = new Uint8Array(width * height * 3);
  let at = 0;
  for (let y = 0; y < height; y++) {
    const row = y * inputWidth * 3;
    for (let x = 0; x < width; x++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let pixel = row + first[x]! * 3;
      const start = x * stride;
      const end = start + count[x]!;
      for (let k = start; k < end; k++) {
        const weight = weights[k]!;
        red += input[pixel]! * weight;
        green += input[pixel + 1]! * weight;
        blue += input[pixel + 2]! * weight;
        pixel += 3;
      }
      output[at] = toByte(red);
      output[at + 1] = toByte(green);
      output[at + 2] = toByte(blue);
      at += 3;
    }
  }
  return output;
}

function resizeColumns(
  input: Uint8Array,
  width: number,
  height: number,
  { first, count, weights, stride }: Weights,
  firstRow: number,
): Uint8Array {
  const length = width * 3;
  const output = new Uint8Array(length * height);
  for (let y = 0; y < height; y++) {
    const start = y * stride;
    const end = start + count[y]!;
    const top = (first[y]! - firstRow) * length;
    const at = y * length;
    let i = 0;
    for (; i + 4 <= length; i += 4) {
      let [a, b, c, d] = [HALF, HALF, HALF, HALF];
      for (let k = start, from = top + i; k < end; k++, from += length) {
        const weight = weights[k]!;
        a += input[from]! * weight;
        b += input[from + 1]! * weight;
        c += input[from + 2]! * weight;
        d += input[from + 3]! * weight;
      }
      output[at + i] = toByte(a);
      output[at + i + 1] = toByte(b);
      output[at + i + 2] = toByte(c);
      output[at + i + 3] = toByte(d);
    }
    for (; i < length; i++) {
      let sum = HALF;
      for (let k = start, from = top + i; k < end; k++, from += length) sum += input[from]! * weights[k]!;
      output[at + i] = toByte(sum);
    }
  }
  return output;
}

function resizeNearest(
  { width: inputWidth, height: inputHeight, data }: RgbImage,
  width: number,
  height: number,
) {
  const positions = (inputSize: number, outputSize: number): Int32Array => {
    const scale = inputSize / outputSize;
    const result = new Int32Array(outputSize);
    let position = scale * 0.5; // Pillow adds up, so the rounding errors are its own
    for (let i = 0; i < outputSize; i++, position += scale) result[i] = Math.trunc(position);
    return result;
  };
  const columns = positions(inputWidth, width);
  const lines = positions(inputHeight, height);
  const output = new Uint8Array(width * height * 3);
  let at = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 3) {
      const from = (lines[y]! * inputWidth + columns[x]!) * 3;
      output[at] = data[from]!;
      output[at + 1] = data[from + 1]!;
      output[at + 2] = data[from + 2]!;
    }
  return { width, height, data: output };
}

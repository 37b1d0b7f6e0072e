/** Samples as a decoder gives them, interleaved: [height, width, channels]. */
export type Samples = {
  data: Uint8Array | Uint16Array | Int16Array | Int32Array | Uint32Array | Float32Array | Float64Array;
  /** 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha, or CMYK. */
  channels: number;
  cmyk?: boolean;
};

/**
 * Samples as 8-bit RGB, as Pillow's `convert("RGB")`: alpha is dropped and not blended with a background; of 16-bit
 * samples the high byte counts, except in a gray picture without alpha, which is cut off at 255, as are 32-bit and
 * floating-point grays; CMYK is converted by R = (255 - K)(255 - C)/255, without a colour profile.
 * Source: Pillow 12, src/libImaging/Convert.c and Unpack.c.
 * @returns undefined for a layout that Pillow does not read either
 */
export function samplesToRgb({ data, channels, cmyk = false }: Samples): Uint8Array | undefined {
  const pixels = data.length / channels;
  if (cmyk) return data instanceof Uint8Array && channels >= 4 ? cmykToRgb(data, channels) : undefined;
  if (channels === 3 && data instanceof Uint8Array) return data;
  const rgb = new Uint8Array(pixels * 3);
  const gray = channels < 3;
  if (data instanceof Uint8Array || (data instanceof Uint16Array && channels > 1)) {
    const shift = data instanceof Uint16Array ? 8 : 0;
    const [green, blue] = gray ? [0, 0] : [1, 2];
    for (let i = 0; i < pixels; i++) {
      rgb[i * 3] = data[i * channels]! >> shift;
      rgb[i * 3 + 1] = data[i * channels + green]! >> shift;
      rgb[i * 3 + 2] = data[i * channels + blue]! >> shift;
    }
    return rgb;
  }
  if (channels !== 1) return undefined;
  for (let i = 0; i < pixels; i++) {
    const value = Math.trunc(Math.min(Math.max(data[i]!, 0), 255));
    rgb.fill(value, i * 3, i * 3 + 3);
  }
  return rgb;
}

function cmykToRgb(data: Uint8Array, channels: number): Uint8Array {
  const pixels = data.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const white = 255 - data[i * channels + 3]!;
    for (let c = 0; c < 3; c++) {
      const product = data[i * channels + c]! * white + 128;
      rgb[i * 3 + c] = Math.max(white - (((product >> 8) + product) >> 8), 0);
    }
  }
  return rgb;
}

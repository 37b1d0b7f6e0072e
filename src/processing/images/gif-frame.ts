/** What the decoded pixels of a GIF no longer tell: where its first frame lies, and the colours by their index. */
export type GifFrame = {
  left: number;
  top: number;
  width: number;
  height: number;
  /** Index of the colour that is not drawn. */
  transparent?: number;
  /** Three bytes a colour: the frame's own palette, else the file's. */
  palette?: Uint8Array;
};

/** The first frame of a GIF, read up to its image data; undefined if there is none. Source: GIF89a specification. */
export function readGifFrame(bytes: Uint8Array): GifFrame | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const paletteBytes = (flags: number): number => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  try {
    let at = 13;
    const globalBytes = paletteBytes(view.getUint8(10));
    let palette = globalBytes > 0 ? bytes.subarray(at, at + globalBytes) : undefined;
    at += globalBytes;
    let transparent: number | undefined;
    for (;;) {
      const block = view.getUint8(at);
      if (block === 0x2c) {
        const flags = view.getUint8(at + 9);
        const localBytes = paletteBytes(flags);
        if (localBytes > 0) palette = bytes.subarray(at + 10, at + 10 + localBytes);
        return {
          left: view.getUint16(at + 1, true),
          top: view.getUint16(at + 3, true),
          width: view.getUint16(at + 5, true),
          height: view.getUint16(at + 7, true),
          ...(transparent !== undefined && { transparent }),
          ...(palette !== undefined && { palette }),
        };
      }
      if (block === 0x3b) return undefined;
      if (block !== 0x21) {
        at++;
        continue;
      }
      // Graphic control extension: packed flags, delay, transparent index.
      if (view.getUint8(at + 1) === 0xf9 && view.getUint8(at + 3) & 1) transparent = view.getUint8(at + 6);
      at += 2;
      for (let size = view.getUint8(at); size > 0; size = view.getUint8(at)) at += size + 1;
      at++;
    }
  } catch (error) {
    if (error instanceof RangeError) return undefined; // the file ends here
    throw error;
  }
}

/**
 * Give pixels that are not drawn the colour that Pillow gives them: that of the transparent index, or of index 0 where
 * the frame has no transparent colour and does not cover the canvas.
 * @param rgba decoded first frame, [height, width, 4]; changed in place
 */
export function colourUndrawnPixels(rgba: Uint8Array, canvasWidth: number, frame: GifFrame): void {
  const { transparent, palette } = frame;
  const colour = [0, 1, 2].map((channel) => palette?.[(transparent ?? 0) * 3 + channel] ?? 0);
  for (let i = 0; i < rgba.length; i += 4) {
    const x = (i / 4) % canvasWidth;
    const y = (i / 4 - x) / canvasWidth;
    const inside =
      x >= frame.left && x < frame.left + frame.width && y >= frame.top && y < frame.top + frame.height;
    if (inside && (rgba[i + 3] !== 0 || transparent === undefined)) continue;
    rgba[i] = colour[0]!;
    rgba[i + 1] = colour[1]!;
    rgba[i + 2] = colour[2]!;
  }
}

import { checkSize, type Decode } from "./decode.ts";
import { colourUndrawnPixels, readGifFrame } from "./gif-frame.ts";
import { imageError } from "./problem.ts";
import { samplesToRgb } from "./to-rgb.ts";

/**
 * Decode with the browser's own decoders, which turn CMYK into 8-bit RGB themselves (a level off Pillow's at most) and
 * decide which orientations count. What they read otherwise than Pillow is refused.
 * @throws DataError "unsupported-image" for TIFF and for 16-bit gray PNG
 */
export const decode: Decode = async (bytes, header, { maxPixels, picture }) => {
  // Byte 24 of a PNG is the bit depth, byte 25 the colour type, 0 for gray.
  const deepGray = header.format === "png" && bytes[24] === 16 && bytes[25] === 0;
  if (header.format === "tiff" || deepGray)
    throw imageError(
      "unsupported-image",
      picture,
      `browsers do not read ${deepGray ? "16-bit gray PNG" : "TIFF"} files as Graft does elsewhere. Convert it to an 8-bit PNG.`,
    );
  const bitmap = await createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>]), {
    premultiplyAlpha: "none",
    colorSpaceConversion: "none",
  });
  try {
    const { width, height } = bitmap;
    checkSize(width, height, maxPixels, picture);
    const rgba = readPixels(bitmap);
    const frame = header.format === "gif" ? readGifFrame(bytes) : undefined;
    if (frame !== undefined) colourUndrawnPixels(rgba, width, frame);
    return { width, height, data: samplesToRgb({ data: rgba, channels: 4 })! };
  } finally {
    bitmap.close();
  }
};

/** Pixels through WebGL, which keeps the colours below transparency; through a 2D canvas where that is not to be had. */
function readPixels(bitmap: ImageBitmap): Uint8Array {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (gl !== null && Math.max(width, height) <= (gl.getParameter(gl.MAX_TEXTURE_SIZE) as number)) {
    try {
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
      gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
      gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
      gl.framebufferTexture2D(
        gl.FRAMEBUFFER,
        gl.COLOR_ATTACHMENT0,
        gl.TEXTURE_2D,
        gl.getParameter(gl.TEXTURE_BINDING_2D) as WebGLTexture,
        0,
      );
      const pixels = new Uint8Array(width * height * 4);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      if (gl.getError() === gl.NO_ERROR) return pixels;
    } finally {
      gl.getExtension("WEBGL_lose_context")?.loseContext(); // browsers allow only a few at once
    }
  }
  const context = new OffscreenCanvas(width, height).getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  return new Uint8Array(context.getImageData(0, 0, width, height).data.buffer);
}

/** Kinds of picture files that can be read. */
export type ImageFormat = "jpeg" | "png" | "gif" | "webp" | "tiff" | "avif";

export type ImageHeader = {
  format: ImageFormat;
  /** As stored, before any orientation; absent where only the decoder knows (TIFF, AVIF, broken files). */
  width?: number;
  height?: number;
};

const ascii = (bytes: Uint8Array, start: number, end: number): string =>
  String.fromCharCode(...bytes.subarray(start, end));

const startsWith = (bytes: Uint8Array, signature: string): boolean =>
  bytes.length >= signature.length && ascii(bytes, 0, signature.length) === signature;

/** What a file is by its first bytes, whatever its name says; undefined if it is none of the readable formats. */
export function readImageHeader(bytes: Uint8Array): ImageHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (startsWith(bytes, "\x89PNG\r\n\x1a\n"))
    return bytes.length < 24
      ? { format: "png" }
      : { format: "png", width: view.getUint32(16), height: view.getUint32(20) };
  if (startsWith(bytes, "\xff\xd8\xff")) return { format: "jpeg", ...jpegSize(view) };
  if (startsWith(bytes, "GIF87a") || startsWith(bytes, "GIF89a")) return { format: "gif" };
  if (startsWith(bytes, "RIFF") && ascii(bytes, 8, 12) === "WEBP")
    return { format: "webp", ...webpSize(bytes, view) };
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].some((signature) => startsWith(bytes, signature)))
    return { format: "tiff" };
  if (ascii(bytes, 4, 8) === "ftyp" && /avif|avis/.test(ascii(bytes, 8, Math.min(40, bytes.length))))
    return { format: "avif" };
  return undefined;
}

/** Width and height of the frame header, which follows markers of known length. */
function jpegSize(view: DataView): { width?: number; height?: number } {
  let at = 2;
  while (at + 9 <= view.byteLength) {
    if (view.getUint8(at) !== 0xff) return {};
    const marker = view.getUint8(at + 1);
    if (marker === 0xff) at++;
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    else if ((marker >= 0xd0 && marker <= 0xd8) || marker === 0x01) at += 2;
    else at += 2 + view.getUint16(at + 2);
  }
  return {};
}

function webpSize(bytes: Uint8Array, view: DataView): { width?: number; height?: number } {
  if (bytes.length < 30) return {};
  switch (ascii(bytes, 12, 16)) {
    case "VP8 ":
      return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
    case "VP8L": {
      const bits = view.getUint32(21, true);
      return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
    }
    case "VP8X":
      return {
        width: (view.getUint32(24, true) & 0xffffff) + 1,
        height: (view.getUint32(26, true) >>> 8) + 1,
      };
    default:
      return {};
  }
}

/** Signatures of what is often taken for a readable picture: what it is, and what to do. */
const refused: readonly [test: (bytes: Uint8Array, text: string) => boolean, what: string, remedy: string][] =
  [
    [
      (_, text) => text.includes("<svg"),
      "is an SVG drawing, which has no pixels",
      "Render it to PNG at the size that you want.",
    ],
    [(_, text) => /^\s*(<!doctype html|<html)/i.test(text), "is a web page", "Download the picture itself."],
    [
      (_, text) => text.startsWith("version https://git-lfs"),
      "is a Git LFS pointer",
      "Fetch the picture with git lfs pull.",
    ],
    [(_, text) => text.startsWith("%PDF"), "is a PDF document", "Render its page to PNG."],
    [(bytes) => startsWith(bytes, "BM"), "is a BMP picture, which cannot be read", "Convert it to PNG."],
    [
      (bytes) => ascii(bytes, 4, 8) === "ftyp",
      "is a HEIC picture or a video, which cannot be read",
      "Convert it to JPEG or PNG.",
    ],
    [
      (bytes) => startsWith(bytes, "\0\0\0\x0cjP  ") || startsWith(bytes, "\xff\x4f\xff\x51"),
      "is a JPEG 2000 picture, which cannot be read",
      "Convert it to PNG.",
    ],
    [
      (bytes) => startsWith(bytes, "\xff\x0a") || startsWith(bytes, "\0\0\0\x0cJXL "),
      "is a JPEG XL picture, which cannot be read",
      "Convert it to PNG.",
    ],
    [(bytes) => startsWith(bytes, "\0\0\x01\0"), "is an icon, which cannot be read", "Convert it to PNG."],
    [(_, text) => /^P[1-7]\s/.test(text), "is a Netpbm picture, which cannot be read", "Convert it to PNG."],
  ];

/** Why a file that `readImageHeader` does not know cannot be read: what it is if that shows, and what to do. */
export function describeForeignFile(bytes: Uint8Array): { what: string; remedy: string; known: boolean } {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 1024));
  for (const [test, what, remedy] of refused) if (test(bytes, text)) return { what, remedy, known: true };
  return {
    what: `is not a picture (it begins with ${[...bytes.subarray(0, 4)].map((b) => b.toString(16).padStart(2, "0")).join(" ")})`,
    remedy: "Give a JPEG, PNG, WebP, GIF, TIFF or AVIF file.",
    known: false,
  };
}

/**
 * Whether an AVIF file stores colour at less than full resolution, or samples of more than 8 bits: decoders make
 * different pixels of these. Source: AV1 Codec ISO Media File Format Binding, section 2.3 (AV1CodecConfigurationBox).
 */
export function isReducedAvif(bytes: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, 1 << 16));
  for (let at = text.indexOf("av1C"); at >= 0; at = text.indexOf("av1C", at + 4)) {
    const flags = bytes[at + 6] ?? 0;
    const [deep, gray, subsampled] = [flags & 0x40, flags & 0x10, flags & 0x0c];
    if (deep || (subsampled && !gray)) return true;
  }
  return false;
}

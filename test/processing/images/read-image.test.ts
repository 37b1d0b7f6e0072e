import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { readImage } from "../../../src/processing/index.ts";

const folder = new URL("../../vectors/processing/images/", import.meta.url);

type Recorded = { file: string; width?: number; height?: number; offset?: number; error?: string };
const { images } = JSON.parse(readFileSync(new URL("manifest.json", folder), "utf8")) as {
  images: Recorded[];
};
const pixels = gunzipSync(readFileSync(new URL("rgb.bin.gz", folder)));
const bytesOf = (file: string) => new Uint8Array(readFileSync(new URL(file, folder)));

/** Where Graft refuses what Pillow reads, and why. */
const refusedHere: Record<string, string> = {
  "too-few-rows.png": "broken-image", // Pillow fills the missing rows with black
  "no-palette.gif": "unsupported-image", // Pillow takes the indices for grays
  "rgb.bmp": "unsupported-image",
  "rgb.ico": "unsupported-image",
  "rgb.ppm": "unsupported-image",
  "rgb.jp2": "unsupported-image",
  "rgb.tga": "not-an-image", // has no signature
  "alpha.avif": "unsupported-image", // 4:2:0, of which sharp's decoder makes other pixels
};

/** Other decoders than Pillow's: how far a sample may be off. */
const tolerance: Record<string, number> = { "rgb.avif": 1 };

/** Which error a file that Pillow does not read gives. */
const errors: Record<string, string> = {
  "truncated.png": "broken-image",
  "header-only.png": "broken-image",
  "bad-header-checksum.png": "broken-image",
  "broken-data.png": "broken-image",
  "zero-width.png": "empty-image",
  "zero-height.png": "empty-image",
  "huge.png": "image-too-large",
  "huge-thin.png": "image-too-large",
  "truncated.jpg": "broken-image",
  "no-end.jpg": "broken-image",
  "header-only.jpg": "broken-image",
  "zero-width.jpg": "empty-image",
  "huge.jpg": "image-too-large",
  "no-frame.gif": "broken-image",
  "truncated.gif": "broken-image",
  "truncated.webp": "broken-image",
  "truncated.tif": "broken-image",
  "drawing.svg": "unsupported-image",
  "svg-named.png": "unsupported-image",
  "page.pdf": "unsupported-image",
  "photo.heic": "unsupported-image",
  "text.png": "not-an-image",
  "page.jpg": "unsupported-image",
  "pointer.png": "unsupported-image",
  "empty.png": "empty-image",
  "zeros.png": "not-an-image",
};

describe("readImage gives the pixels that Pillow gives", () => {
  const read = images.filter(({ file, error }) => error === undefined && !(file in refusedHere));
  it.each(read)("$file", async ({ file, width, height, offset }) => {
    const image = await readImage(bytesOf(file));
    expect([image.width, image.height]).toEqual([width, height]);
    const expected = pixels.subarray(offset, offset! + width! * height! * 3);
    expect(image.data).toHaveLength(expected.length);
    const worst = image.data.reduce((max, value, i) => Math.max(max, Math.abs(value - expected[i]!)), 0);
    expect(worst).toBeLessThanOrEqual(tolerance[file] ?? 0);
  });
});

describe("readImage refuses what it cannot read", () => {
  const refused = images.filter(({ file, error }) => error !== undefined || file in refusedHere);
  it.each(refused)("$file", async ({ file }) => {
    const code = errors[file] ?? refusedHere[file];
    const error = await readImage(bytesOf(file), {
      name: `pictures/${file}`,
      place: { file: "rows.jsonl", line: 12 },
    }).catch((error: unknown) => error);
    expect(error).toMatchObject({
      name: "DataError",
      code,
      details: { file: "rows.jsonl", line: 12, image: `pictures/${file}` },
    });
    expect((error as Error).message).toMatch(new RegExp(`^rows.jsonl:12: pictures/${file}: .*\\.$`));
  });
});

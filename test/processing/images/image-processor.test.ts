import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { parseImageProcessor } from "../../../src/processing/images/image-options.ts";
import { ImageProcessor, readImage, resize } from "../../../src/processing/index.ts";

const folder = new URL("../../vectors/processing/", import.meta.url);

type Settings = Record<string, unknown>;
type Case = {
  settings: string | Settings;
  picture?: number;
  file?: string;
  shape?: number[];
  offset?: number;
  sha256?: string;
  error?: string;
};
const recorded = JSON.parse(readFileSync(new URL("pixels.json", folder), "utf8")) as {
  settings: Record<string, Settings>;
  base: Settings;
  pictures: { width: number; height: number; offset: number }[];
  cases: Case[];
  resized: { filter: number; width: number; height: number; sha256: string }[];
};
const blob = gunzipSync(readFileSync(new URL("pixels.bin.gz", folder)));
const sha256 = (data: ArrayBufferView): string =>
  createHash("sha256")
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest("hex");

const processorFor = (changes: Settings): ImageProcessor =>
  new ImageProcessor(
    parseImageProcessor({ ...recorded.base, ...changes }, { file: "preprocessor_config.json" }),
  );

const pictureAt = (index: number) => {
  const { width, height, offset } = recorded.pictures[index]!;
  return { width, height, data: new Uint8Array(blob.subarray(offset, offset + width * height * 3)) };
};

describe("pixel values equal the reference's, bit for bit", () => {
  const names = Object.keys(recorded.settings);
  it.each(names)("with the settings %s", (name) => {
    const cases = recorded.cases.filter(({ settings }) => settings === name);
    expect(cases.length).toBeGreaterThan(0);
    for (const { picture, shape, offset, error } of cases) {
      const run = () => processorFor(recorded.settings[name]!).preprocessBatch([pictureAt(picture!)]);
      if (error !== undefined) {
        const code = /must be > 0/.test(error) ? "empty-image" : "bad-processor";
        expect(run).toThrow(expect.objectContaining({ name: "DataError", code }));
        continue;
      }
      const values = run();
      expect(values.shape).toEqual(shape);
      const bytes = Uint8Array.from(blob.subarray(offset, offset! + values.data.byteLength));
      expect(values.data).toEqual(new Float32Array(bytes.buffer));
    }
  });

  const files = recorded.cases.filter(({ file }) => file !== undefined);
  it.each(files)("from the file $file at 768 × 768, filter $settings.resample", async (entry) => {
    const file = new URL(`images/${entry.file}`, folder);
    const image = await readImage(new Uint8Array(readFileSync(file)));
    const values = processorFor(entry.settings as Settings).preprocessBatch([image]);
    expect(values.shape).toEqual(entry.shape);
    expect(sha256(values.data)).toBe(entry.sha256);
  });
});

describe("resize equals Pillow's", () => {
  const [width, height] = [1601, 1203];
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) data[at++] = x * (3 + c) + y * (7 - c) + Math.floor((x * y) / (11 + c));
  it.each(recorded.resized)(
    "filter $filter to $width × $height",
    ({ filter, width: w, height: h, sha256: expected }) => {
      const resized = resize({ width, height, data }, w, h, filter);
      expect([resized.width, resized.height]).toEqual([w, h]);
      expect(sha256(resized.data)).toBe(expected);
    },
  );
});

describe("batches and settings", () => {
  it("pictures that come out in different sizes are named", () => {
    const processor = processorFor({ size: { shortest_edge: 8 } });
    const image = (width: number, height: number) => ({
      width,
      height,
      data: new Uint8Array(width * height * 3),
    });
    expect(() => processor.preprocessBatch([image(16, 8), image(16, 8), image(8, 16)])).toThrow(
      "Picture 1 comes out as 16 × 8 pixels and picture 3 as 8 × 16",
    );
    expect(processor.preprocessBatch([image(16, 8), image(32, 16)]).shape).toEqual([2, 3, 8, 16]);
  });

  it("a picture alone has no batch dimension", () => {
    const processor = processorFor({});
    const image = pictureAt(1);
    const { shape, data } = processor.preprocess(image);
    expect(shape).toEqual([3, 16, 24]);
    expect(data).toEqual(processor.preprocessBatch([image]).data);
  });

  it("all that is wrong with a file is listed at once", () => {
    const json = {
      size: { height: 0, width: 3 },
      resample: 9,
      do_resize: "yes",
      image_std: [1, 0, 1],
      crop_size: { shortest_edge: 3 },
      image_processor_type: "ViTImageProcessor",
      do_pad: true,
      do_convert_rgb: false,
    };
    const error = (() => {
      try {
        return parseImageProcessor(json, { file: "model/preprocessor_config.json" });
      } catch (error) {
        return error as Error & { details: { problems: string[] } };
      }
    })() as Error & { details: { problems: string[] } };
    expect(error.message).toMatch(
      /^model\/preprocessor_config\.json: "do_resize" must be true or false, got "yes";/,
    );
    expect(error.details.problems.map((problem) => problem.split('"')[1])).toEqual([
      "do_resize",
      "size",
      "resample",
      "crop_size",
      "image_std",
      "image_processor_type",
      "do_convert_rgb",
      "do_pad",
    ]);
  });

  it("what a file leaves out is as in CLIP's processor", () => {
    expect(parseImageProcessor({}, { file: "x" })).toMatchObject({
      size: { shortestEdge: 224 },
      cropSize: { height: 224, width: 224 },
      doCenterCrop: true,
      resample: 3,
    });
  });
});

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { readImage } from "../../../src/processing/index.ts";

const path = fileURLToPath(new URL("../../vectors/processing/images/rgb.png", import.meta.url));
const bytes = new Uint8Array(readFileSync(path));
const base64 = Buffer.from(bytes).toString("base64");
const folder = mkdtempSync(join(tmpdir(), "graft-read-image-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a picture is the same from", () => {
  it.each([
    ["a path", path],
    ["an ArrayBuffer", bytes.slice().buffer],
    ["a Blob", new Blob([bytes])],
    ["a part of a larger buffer", new Uint8Array([1, 2, 3, ...bytes]).subarray(3)],
    ["a data URL", `data:image/png;base64,${base64}`],
    ["a data URL with parameters and capitals", `DATA:image/png;name=a.png;charset=x;BASE64,${base64}`],
    ["a data URL with another type", `data:image/jpeg;base64,${base64}`],
  ] as const)("%s", async (_, input) => {
    expect(await readImage(input)).toEqual(await readImage(bytes));
  });

  it("what is decoded already, which is not copied", async () => {
    const image = { width: 2, height: 1, data: new Uint8Array([1, 2, 3, 4, 5, 6]) };
    expect(await readImage(image)).toBe(image);
  });
});

const place = { file: "rows.jsonl", line: 3 };

describe("refused", () => {
  it.each([
    ["data:image/png,abc", "bad-data-url", "rows.jsonl:3: data:image/png,abc…: the data URL is not base64."],
    ["data:;base64,%%%", "bad-data-url", "the data URL's base64 is malformed."],
    [
      "https://example.com/a.png",
      "unreadable",
      "rows.jsonl:3: https://example.com/a.png: pictures are read from files",
    ],
    [join(folder, "none.png"), "unreadable", "none.png: there is no such file. Check the path."],
    [folder, "unreadable", `rows.jsonl:3: ${folder}: is a directory.`],
    [new Uint8Array(0), "empty-image", "rows.jsonl:3: image: the file is empty."],
    [{ width: 2, height: 2, data: new Uint8Array(11) }, "empty-image", "a decoded picture of 2 × 2"],
    [{ width: 0, height: 2, data: new Uint8Array(0) }, "empty-image", "a decoded picture of 0 × 2"],
  ])("%s", async (input, code, message) => {
    const error = await readImage(input, { place }).catch((error: unknown) => error);
    expect(error).toMatchObject({ name: "DataError", code, details: { file: "rows.jsonl", line: 3 } });
    expect((error as Error).message).toContain(message);
  });

  it("a picture above a limit of one's own, before it is decoded", async () => {
    const cut = bytes.subarray(0, 60);
    await expect(readImage(cut, { maxPixels: 37 * 29 - 1, name: "a.png" })).rejects.toThrow(
      "a.png: the picture is 37 × 29 pixels, more than the limit of 1072. Scale it down.",
    );
    expect(await readImage(bytes, { maxPixels: 37 * 29 })).toMatchObject({ width: 37, height: 29 });
  });

  it("a TIFF file above the limit, whose size only the decoder reads", async () => {
    const tiff = readFileSync(path.replace("rgb.png", "rgb.tif"));
    await expect(readImage(tiff, { maxPixels: 100 })).rejects.toMatchObject({ code: "image-too-large" });
  });

  it("a file without a row is named alone", async () => {
    const file = join(folder, "broken.png");
    writeFileSync(file, bytes.subarray(0, 300));
    await expect(readImage(file)).rejects.toThrow(`${file}: the PNG file is cut off or damaged (`);
    await expect(readImage(join(folder, "none.png"))).rejects.toThrow(
      `${join(folder, "none.png")}: there is no such file.`,
    );
  });
});

describe("without sharp", () => {
  afterEach(() => {
    vi.doUnmock("sharp");
    vi.resetModules();
  });

  it("the error says how to install it", async () => {
    vi.doMock("sharp", () => {
      throw new Error("Cannot find package 'sharp'");
    });
    vi.resetModules();
    const { readImage } = await import("../../../src/processing/index.ts");
    await expect(readImage(bytes, { name: "a.png" })).rejects.toMatchObject({
      code: "no-image-library",
      message: expect.stringMatching(/^a\.png: .* npm install sharp$/),
    });
  });
});

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { beforeAll, describe, expect, test } from "vitest";
import { type ErrorDocument, graft, root, scratch } from "./support.ts";

const directory = scratch();
const model = join(root, "models/tiny-florence2");
const at = (name: string): string => join(directory, name);

/** A PNG file of nothing but a header. */
function header(width: number, height: number): Buffer {
  const bytes = Buffer.from("89504e470d0a1a0a0000000d49484452000000000000000008020000000000000000", "hex");
  bytes.writeUInt32BE(width, 16);
  bytes.writeUInt32BE(height, 20);
  return bytes;
}

beforeAll(async () => {
  const pixels = Buffer.from({ length: 40 * 30 * 3 } as ArrayLike<number>).map((_, i) => (i * 37) % 256);
  const picture = () => sharp(pixels, { raw: { width: 40, height: 30, channels: 3 } });
  const png = await picture().png().toBuffer();
  writeFileSync(at("fine.png"), png);
  writeFileSync(at("alpha.png"), await picture().ensureAlpha(0.5).png().toBuffer());
  writeFileSync(at("deep.png"), await picture().toColourspace("rgb16").png().toBuffer());
  writeFileSync(at("print.jpg"), await picture().toColourspace("cmyk").jpeg().toBuffer());
  writeFileSync(at("moving.gif"), await picture().gif().toBuffer());
  writeFileSync(at("cut.png"), png.subarray(0, png.length / 2));
  writeFileSync(at("empty.png"), "");
  writeFileSync(at("text.png"), "not a picture");
  writeFileSync(at("huge.png"), header(100_000, 100_000));
  writeFileSync(at("flat.png"), header(0, 10));
});

/** One row for each picture. */
function rows(
  name: string,
  pictures: readonly string[],
  prompt = "<CAPTION>",
  completion = "a face",
): string {
  const lines = pictures.map((image) => JSON.stringify({ image, prompt, completion }));
  writeFileSync(at(name), lines.join("\n"));
  return at(name);
}

const train = (data: string, output: string) =>
  graft([
    ...[
      "train",
      model,
      "--data",
      data,
      "--target-modules",
      "q_proj",
      "--layers",
      "last 1",
      "--max-steps",
      "2",
    ],
    ...["--no-shuffle", "--batch-size", "1", "--output", output, "--json"],
  ]);

describe("pictures that cannot be used", () => {
  test("are named with their lines before anything is made", async () => {
    const bad = ["empty.png", "text.png", "huge.png", "flat.png", "missing.png"];
    const { code, json } = await train(rows("bad.jsonl", ["fine.png", ...bad]), at("out-bad"));
    expect(code).toBe(2);
    const { message, details } = json<ErrorDocument>().error;
    expect(details).toMatchObject({ count: 5 });
    for (const [i, name] of bad.entries()) expect(message).toContain(`bad.jsonl:${i + 2}: ${at(name)}: `);
    expect(message).toMatch(
      /the file is empty.*\n.*not a picture.*\n.*100000 × 100000.*\n.*0 × 10.*\n.*no such file/,
    );
    expect(existsSync(at("out-bad"))).toBe(false);
  });

  test("one that is cut off is found when it is read, and leaves nothing half-made", async () => {
    const { code, json } = await train(rows("cut.jsonl", ["fine.png", "cut.png"]), at("out-cut"));
    expect(code).toBe(2);
    expect(json<ErrorDocument>().error).toMatchObject({ code: "broken-image" });
    expect(json<ErrorDocument>().error.message).toMatch(
      /cut\.jsonl:2: .*cut\.png: the PNG file is cut off or damaged/,
    );
    expect(existsSync(at("out-cut"))).toBe(false);
  });

  test("so is a task with text that it does not take", async () => {
    const data = rows("prompt.jsonl", ["fine.png"], "<CAPTION> and more");
    const { code, json } = await train(data, at("out-prompt"));
    expect(code).toBe(2);
    expect(json<ErrorDocument>().error.message).toMatch(/prompt\.jsonl:1: .*has other text beside <CAPTION>/);
    expect(existsSync(at("out-prompt"))).toBe(false);
  });
});

test("a completion beyond the decoder's positions is cut, and counted", async () => {
  const data = rows("long.jsonl", ["fine.png"], "<CAPTION>", "word ".repeat(400));
  const { code, stderr } = await train(data, at("out-long"));
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("1 example longer than 128 tokens cut");
});

test("pictures of every usual kind train and are written about", async () => {
  const pictures = ["fine.png", "alpha.png", "deep.png", "print.jpg", "moving.gif"];
  const { code, stderr } = await train(rows("good.jsonl", pictures), at("out-good"));
  expect(code, stderr).toBe(0);
  const evaluated = await graft([
    ...["eval", model, "--adapter", at("out-good"), "--data", at("good.jsonl"), "--generate", "--json"],
  ]);
  expect(evaluated.code, evaluated.stderr).toBe(0);
  expect(evaluated.json<{ generation: { texts: number } }>().generation.texts).toBe(5);
});

describe("generate", () => {
  test.each<[string, string[], RegExp]>([
    [
      "a missing picture",
      ["--image", "/nowhere.png", "--prompt", "<CAPTION>"],
      /\/nowhere\.png: there is no such file/,
    ],
    ["no picture", ["--prompt", "<CAPTION>"], /asked about a picture; give one with --image/],
    [
      "a prompt beyond the position table",
      ["--image", "fine.png", "--prompt", "word ".repeat(400)],
      /positions for 128/,
    ],
    [
      "a task with text that it does not take",
      ["--image", "fine.png", "--prompt", "<OD> cats"],
      /has other text beside <OD>/,
    ],
  ])("%s", async (_, given, message) => {
    const { code, stderr } = await graft([
      "generate",
      model,
      ...given.map((word) => (word === "fine.png" ? at(word) : word)),
    ]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});

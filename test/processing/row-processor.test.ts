import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Dataset, type OpenDatasetOptions, openDataset } from "../../src/data/index.ts";
import { DataError } from "../../src/errors.ts";
import { createRowProcessor, Florence2Processor, readImage } from "../../src/processing/index.ts";
import type { PictureReply, PictureRequest } from "../../src/processing/pictures/protocol.ts";
import { pageReader } from "../../src/processing/row-processor.ts";
import { PictureThread, type PictureWorker } from "../../src/processing/thread/node.ts";
import { zeros } from "../../src/tensor/index.ts";

const vectors = fileURLToPath(new URL("../vectors/processing/", import.meta.url));
const images = join(vectors, "images");
const folder = mkdtempSync(join(tmpdir(), "graft-row-processor-"));

let processor: Florence2Processor;
let rows: ReturnType<typeof createRowProcessor>;
beforeAll(async () => {
  processor = await Florence2Processor.fromPretrained(join(vectors, "current"));
  rows = createRowProcessor(processor);
});
afterAll(async () => {
  for (const dataset of opened) await dataset.close?.();
  await rows.close();
  rmSync(folder, { recursive: true, force: true });
});

const bits = (values: Float32Array): Uint32Array =>
  new Uint32Array(values.buffer, values.byteOffset, values.length);
const onThisThread = async (path: string) => processor.imageProcessor.preprocess(await readImage(path));

let written = 0;
function dataFile(lines: readonly unknown[]): string {
  const path = join(folder, `rows-${written++}.jsonl`);
  writeFileSync(path, lines.map((line) => JSON.stringify(line)).join("\n"));
  return path;
}
const opened: Dataset[] = [];
async function open(path: string, options: OpenDatasetOptions = {}): Promise<Dataset> {
  const dataset = await openDataset(path, {
    architecture: "encoder-decoder",
    processor: rows,
    tokenizer: processor.tokenizer,
    prompt: "<CAPTION>",
    ...options,
  });
  opened.push(dataset);
  return dataset;
}
const errorOf = async (run: Promise<unknown>): Promise<DataError> => {
  const error = await run.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(DataError);
  return error as DataError;
};

describe("rows with pictures", () => {
  test("ids and labels are the processor's and its tokenizer's", async () => {
    const image = join(images, "rgb.png");
    const dataset = await open(
      dataFile([
        { image, prompt: "<OD>", completion: "a cat<loc_1>" },
        { file_name: image, text: "a dog" },
      ]),
    );
    const [first, second] = await Promise.all([dataset.get(0), dataset.get(1)]);
    expect(first).toMatchObject({
      inputIds: processor.encodePrompt("<OD>"),
      labels: processor.tokenizer.encode("a cat<loc_1>"),
      line: 1,
    });
    expect(second.inputIds).toEqual(processor.encodePrompt("<CAPTION>"));
    expect(second.labels).toEqual(processor.tokenizer.encode("a dog"));
    expect(second.labels.at(0)).toBe(processor.tokenizer.bosTokenId);
    expect(second.labels.at(-1)).toBe(processor.tokenizer.eosTokenId);
    const { pixelValues } = await processor.process({ text: "<OD>", images: image });
    expect([1, ...first.pixelValues!.shape]).toEqual(pixelValues!.shape);
    expect(bits(first.pixelValues!.data)).toEqual(bits(pixelValues!.data));
  });

  test("a picture is the same from a path beside the file, an absolute one and a data URL", async () => {
    mkdirSync(join(folder, "sub"), { recursive: true });
    copyFileSync(join(images, "rgb.png"), join(folder, "sub", "a b.png"));
    const base64 = readFileSync(join(images, "rgb.png")).toString("base64");
    const dataset = await open(
      dataFile(
        ["sub/a b.png", join(images, "rgb.png"), `data:image/png;base64,${base64}`].map((image) => ({
          image,
          completion: "x",
        })),
      ),
      { validate: true },
    );
    const expected = bits((await onThisThread(join(images, "rgb.png"))).data);
    for (let i = 0; i < 3; i++) expect(bits((await dataset.get(i)).pixelValues!.data)).toEqual(expected);
  });

  test.each([
    "animated.gif",
    "animated.webp",
    "cmyk.jpg",
    "cmyk.tif",
    "gray-16bit.png",
    "gray-alpha-16bit.png",
    "gray-alpha.png",
    "lossless-alpha.webp",
    "inner-frame-transparent.gif",
    "interlaced.png",
    "oriented-6.jpg",
    "one-pixel.png",
    "one-row.png",
    "large.jpg",
  ])("%s comes out of the thread bit by bit as on this one", async (name) => {
    const image = join(images, name);
    const dataset = await open(dataFile([{ image, completion: "x" }]), { validate: true });
    const { pixelValues } = await dataset.get(0);
    const expected = await onThisThread(image);
    expect(pixelValues!.shape).toEqual(expected.shape);
    expect(bits(pixelValues!.data)).toEqual(bits(expected.data));
  });
});

describe("a bad picture is named with its file and line", () => {
  const good = join(images, "rgb.png");
  beforeAll(() => {
    writeFileSync(join(folder, "nothing.png"), "");
    writeFileSync(join(folder, "cut.png"), readFileSync(good).subarray(0, 300));
    writeFileSync(join(folder, "note.png"), "this is a note");
    // The width of a PNG is in bytes 16 to 19.
    writeFileSync(
      join(folder, "no-width.png"),
      readFileSync(good).map((byte, i) => (i >= 16 && i < 20 ? 0 : byte)),
    );
  });

  /** Whether the header says it already. */
  test.each([
    ["none.png", "unreadable", "there is no such file. Check the path.", true],
    [".", "unreadable", "is a directory.", true],
    ["nothing.png", "empty-image", "the file is empty. Copy it again, or leave it out.", true],
    ["note.png", "not-an-image", "the file is not a picture (it begins with 74 68 69 73).", true],
    [
      join(images, "drawing.svg"),
      "unsupported-image",
      "the file is an SVG drawing, which has no pixels.",
      true,
    ],
    [
      join(images, "huge.png"),
      "image-too-large",
      "pixels, more than the limit of 178956970. Scale it down.",
      true,
    ],
    [join(images, "huge.jpg"), "image-too-large", "pixels, more than the limit of", true],
    ["no-width.png", "empty-image", "the picture is 0 × 29 pixels. Give one with pixels.", true],
    ["https://example.com/a.png", "unreadable", "pictures are read from files, not from addresses.", true],
    ["data:image/png,abc", "bad-data-url", "the data URL is not base64.", true],
    ["cut.png", "broken-image", "the PNG file is cut off or damaged (", false],
    [join(images, "broken-data.png"), "broken-image", "the PNG file is cut off or damaged (", false],
    [join(images, "header-only.jpg"), "broken-image", "the JPEG file is cut off or damaged (", false],
  ])("%s", async (image, code, message, byHeader) => {
    const path = dataFile([
      { image: good, completion: "x" },
      { image, completion: "x" },
    ]);
    const dataset = await open(path);
    const error = await errorOf(dataset.get(1));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(new RegExp(`^${path}:2: `));
    expect(error.message).toContain(message);
    expect(error.details).toMatchObject({ file: path, line: 2 });
    const validated = open(path, { validate: true });
    if (byHeader) expect((await errorOf(validated)).message).toBe(error.message);
    else await validated;
  });

  test("validate lists ten of them, before any is decoded", async () => {
    const bad = Array.from({ length: 13 }, (_, i) => ({ image: `gone-${i}.png`, completion: "x" }));
    const path = dataFile([{ image: good, completion: "x" }, ...bad]);
    const untouched = createRowProcessor(processor);
    const error = await errorOf(
      open(path, { processor: { ...untouched, readPixels: refuse }, validate: true }),
    );
    expect(error.code).toBe("bad-rows");
    expect(error.message).toContain(
      `${path}: 13 of 14 rows cannot be used:\n${path}:2: ${join(folder, "gone-0.png")}:`,
    );
    expect(error.message).toContain(`${path}:11: `);
    expect(error.message).not.toContain(`${path}:12: `);
    expect(error.message).toMatch(/\n… and 3 more$/);
  });
  const refuse = (): Promise<never> => Promise.reject(new Error("a picture was read"));

  test("a limit of one's own, and one that becomes too thin", async () => {
    const path = dataFile([{ image: good, completion: "x" }]);
    const small = createRowProcessor(processor, { maxPixels: 100 });
    const error = await errorOf(open(path, { processor: small, validate: true }));
    expect(error.message).toContain(
      `${path}:1: ${good}: the picture is 37 × 29 pixels, more than the limit of 100.`,
    );
    const dataset = await open(path, { processor: small });
    expect((await errorOf(dataset.get(0))).message).toBe(error.message);
    await small.close();
    expect((await errorOf(small.readPixels({ path: good }, { file: "x" }))).code).toBe("pictures-closed");
  });

  test("a prompt that its task does not take", async () => {
    const path = dataFile([{ image: good, prompt: "<OD> cats", completion: "x" }]);
    const error = await errorOf(open(path).then((dataset) => dataset.get(0)));
    expect(error.code).toBe("bad-prompt");
    expect(error.message).toBe(
      `${path}:1: The prompt "<OD> cats" has other text beside <OD>, and this task takes none. Give "<OD>" alone.`,
    );
  });

  test("text and pictures beyond the model's positions", async () => {
    const path = dataFile([{ image: good, prompt: "one two three four five six", completion: "x" }]);
    const placeholders = processor.numImageTokens;
    const dataset = await open(path, { textLimit: placeholders + 3 });
    const whole = processor.encodePrompt("one two three four five six");
    expect((await dataset.get(0)).inputIds).toEqual(whole.slice(0, placeholders + 3));
    expect(dataset.stats?.truncated).toBe(1);
    const error = await errorOf(
      open(path, { textLimit: placeholders - 1 }).then((dataset) => dataset.get(0)),
    );
    expect(error.code).toBe("picture-too-long");
    expect(error.message).toContain(`${path}:1: the picture takes ${placeholders} tokens`);
  });
});

describe("options", () => {
  test.each([{ concurrent: 0 }, { concurrent: 1.5 }, { maxPixels: -1 }])("refuses %j", (options) => {
    expect(() => createRowProcessor(processor, options)).toThrow(RangeError);
  });
});

/** A thread that answers when it is told to. */
class FakeWorker {
  readonly listeners = new Map<string, (value: never) => void>();
  readonly underWay: PictureRequest[] = [];
  transferred: unknown[] = [];
  most = 0;
  alive = true;
  ended = false;
  on(event: string, listener: (value: never) => void): this {
    this.listeners.set(event, listener);
    return this;
  }
  postMessage(request: PictureRequest, transfer: unknown[]): void {
    this.underWay.push(request);
    this.transferred.push(...transfer);
    this.most = Math.max(this.most, this.underWay.length);
  }
  /** Answer the request at an index of those under way. */
  answer(index: number): void {
    const [{ id }] = this.underWay.splice(index, 1) as [PictureRequest];
    this.emit("message", { id, shape: [3, 1, 1], data: new Float32Array([id, 0, 0]) } satisfies PictureReply);
  }
  emit(event: string, value: unknown): void {
    this.listeners.get(event)!(value as never);
  }
  ref(): void {
    this.alive = true;
  }
  unref(): void {
    this.alive = false;
  }
  async terminate(): Promise<number> {
    this.ended = true;
    return 0;
  }
}
const settings = { options: {} as never, maxPixels: 1 };
const withFake = (concurrent: number) => {
  const worker = new FakeWorker();
  return {
    worker,
    thread: new PictureThread(settings, concurrent, () => worker as unknown as PictureWorker),
  };
};
const place = { file: "rows.jsonl", line: 1 };

describe("the thread", () => {
  test("never holds more pictures than allowed, takes them in order, and answers each", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 30 }),
        fc.infiniteStream(fc.nat()),
        async (concurrent, count, choices) => {
          const { worker, thread } = withFake(concurrent);
          const results = Array.from({ length: count }, (_, i) => thread.read({ path: `${i}` }, place));
          const seen: string[] = [];
          while (worker.underWay.length > 0) {
            for (const { image } of worker.underWay) {
              const { path } = image as { path: string };
              if (!seen.includes(path)) seen.push(path);
            }
            worker.answer((choices.next().value as number) % worker.underWay.length);
          }
          // Request i + 1 was the i-th picture, and its answer says so.
          const values = (await Promise.all(results)).map(({ data }) => data[0]);
          expect(values).toEqual(results.map((_, i) => i + 1));
          expect(seen).toEqual(results.map((_, i) => `${i}`));
          expect(worker.most).toBe(Math.min(concurrent, count));
          expect(worker.alive).toBe(false);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("bytes are copied when their turn comes, so that their owner keeps them", async () => {
    const { worker, thread } = withFake(1);
    const all = new Uint8Array([0, 1, 2, 3, 4]);
    const reading = thread.read({ bytes: all.subarray(1, 3), name: "a" }, place);
    const { image } = worker.underWay[0]! as { image: { bytes: Uint8Array } };
    expect([...image.bytes]).toEqual([1, 2]);
    expect(image.bytes.buffer.byteLength).toBe(2);
    expect(worker.transferred).toEqual([image.bytes.buffer]);
    worker.answer(0);
    await reading;
    expect([...all]).toEqual([0, 1, 2, 3, 4]);
  });

  test("close refuses what waits and lets the thread end what it has begun", async () => {
    const { worker, thread } = withFake(1);
    const begun = thread.read({ path: "a" }, place);
    const waiting = errorOf(thread.read({ path: "b" }, place));
    const closing = thread.close();
    expect((await waiting).code).toBe("pictures-closed");
    expect(worker.ended).toBe(false);
    worker.answer(0);
    expect((await begun).shape).toEqual([3, 1, 1]);
    await closing;
    expect(worker.ended).toBe(true);
    expect((await errorOf(thread.read({ path: "c" }, place))).code).toBe("pictures-closed");
  });

  test("a thread that fails refuses everything, now and later", async () => {
    const { worker, thread } = withFake(1);
    const all = [thread.read({ path: "a" }, place), thread.read({ path: "b" }, place)].map(errorOf);
    worker.emit("error", new Error("out of memory"));
    for (const error of await Promise.all(all)) {
      expect(error.code).toBe("pictures-stopped");
      expect(error.message).toBe("The thread that decodes pictures failed: out of memory.");
    }
    expect((await errorOf(thread.read({ path: "c" }, place))).code).toBe("pictures-stopped");
    await thread.close();
  });

  test("a real one that is closed while it works, and one that never began", async () => {
    const busy = createRowProcessor(processor, { concurrent: 1 });
    const path = join(images, "large.jpg");
    const reads = [0, 1, 2].map(() => busy.readPixels({ path }, place));
    const outcomes = Promise.allSettled(reads);
    await Promise.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    await busy.close();
    for (const outcome of await outcomes)
      if (outcome.status === "rejected") expect(outcome.reason.code).toBe("pictures-closed");
    await createRowProcessor(processor).close();
  });
});

describe("without a thread, as in a browser", () => {
  test("never more pictures than allowed; a failure gives its turn on", async () => {
    let [underWay, most] = [0, 0];
    const reader = pageReader(
      { imageProcessor: processor.imageProcessor, maxPixels: 1 },
      3,
      async (image) => {
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setTimeout(resolve, 1));
        underWay--;
        if ((image as { path: string }).path === "1") throw new Error("bad");
        return zeros("float32", [3, 1, 1]);
      },
    );
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => reader.read({ path: `${i}` }, place)),
    );
    expect(most).toBe(3);
    expect(outcomes.map(({ status }) => status === "fulfilled")).toEqual(outcomes.map((_, i) => i !== 1));
  });

  test("the pixels are the thread's", async () => {
    const reader = pageReader({ imageProcessor: processor.imageProcessor, maxPixels: 1e6 }, 1);
    const path = join(images, "cmyk.jpg");
    expect(bits((await reader.read({ path }, place)).data)).toEqual(
      bits((await rows.readPixels({ path }, place)).data),
    );
  });
});

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openFile } from "../../src/data/node.ts";
import { type OpenDatasetOptions, openDataset } from "../../src/data/open-dataset.ts";
import { parquetRows } from "../../src/data/parquet-rows.ts";
import type { RowDataset } from "../../src/data/row-dataset.ts";
import type { Tokenizer } from "../../src/data/tokenizer.ts";
import type { Dataset } from "../../src/data/types.ts";
import { createRowProcessor, Florence2Processor, readImage } from "../../src/processing/index.ts";
import { countingSource, dataErrorOf, vectorTokenizer } from "./support.ts";

const vectors = fileURLToPath(new URL("../vectors/", import.meta.url));
const pathOf = (name: string): string => `${vectors}data/parquet/${name}.parquet`;
const recorded = JSON.parse(readFileSync(`${vectors}data/parquet/rows.json`, "utf8"));

let qwen: Tokenizer;
let processor: Florence2Processor;
let rows: ReturnType<typeof createRowProcessor>;
const opened: Dataset[] = [];
beforeAll(async () => {
  qwen = await vectorTokenizer("qwen");
  processor = await Florence2Processor.fromPretrained(`${vectors}processing/current`);
  rows = createRowProcessor(processor);
});
afterAll(async () => {
  for (const dataset of opened) await dataset.close?.();
  await rows.close();
});

async function open(name: string, options: OpenDatasetOptions = {}): Promise<Dataset> {
  const dataset = await openDataset(pathOf(name), { tokenizer: qwen, ...options });
  opened.push(dataset);
  return dataset;
}

/** A dataset of the same rows as JSONL. */
const asJsonl = (name: string, options: OpenDatasetOptions = {}) => {
  const text = (recorded[name] as unknown[]).map((row) => JSON.stringify(row)).join("\n");
  const bytes = new TextEncoder().encode(text);
  return openDataset(countingSource(`${name}.jsonl`, bytes), { tokenizer: qwen, ...options });
};

describe("rows are those of the same JSONL", () => {
  test.each([
    ["pairs", "prompt-completion"],
    ["chats", "messages"],
    ["ids", "input-ids"],
  ])("%s, in any order", async (name, kind) => {
    const [dataset, expected] = await Promise.all([open(name, { validate: true }), asJsonl(name)]);
    expect((dataset as RowDataset).kind).toBe(kind);
    expect(dataset.length).toBe(expected.length);
    const order = Array.from({ length: dataset.length }, (_, i) => (i * 7 + 3) % dataset.length);
    for (const i of order) {
      const { inputIds, labels } = await expected.get(i);
      expect(await dataset.get(i)).toEqual({ inputIds, labels, file: pathOf(name) });
    }
    expect(dataset.stats?.examples).toBe(new Set(order).size);
    expect(dataset.stats?.ignoredKeys).toEqual(name === "pairs" ? ["id"] : []);
  });

  test("for an encoder–decoder too", async () => {
    const options = { architecture: "encoder-decoder", validate: true } as const;
    for (const name of ["pairs", "ids"]) {
      const [dataset, expected] = await Promise.all([open(name, options), asJsonl(name, options)]);
      const { inputIds, labels } = await expected.get(5);
      expect(await dataset.get(5)).toMatchObject({ inputIds, labels });
    }
  });
});

describe("pictures in the file", () => {
  const options = (): OpenDatasetOptions => ({
    architecture: "encoder-decoder",
    processor: rows,
    prompt: "<CAPTION>",
    tokenizer: processor.tokenizer,
    validate: true,
  });
  const names = ["rgb.png", "cmyk.jpg", "animated.gif", "gray-16bit.png", "gray-alpha.png"];
  const pixelsOf = async (name: string) =>
    processor.imageProcessor.preprocess(await readImage(`${vectors}processing/images/${name}`)).data;

  test("as Hugging Face datasets writes them: bytes and path, or a path alone", async () => {
    const dataset = await open("captions", options());
    expect(dataset.length).toBe(6);
    // All at once, twice: bytes are not taken away from the rows that are held.
    for (let time = 0; time < 2; time++) {
      const examples = await Promise.all([0, 1, 2, 3, 4, 5].map((i) => dataset.get(i)));
      for (const [i, { pixelValues, labels }] of examples.entries()) {
        expect(pixelValues!.data).toEqual(await pixelsOf(names[i] ?? "rgb.png"));
        const text = i < 5 ? `caption ${i} ✓` : "by its path";
        expect(labels).toEqual(processor.tokenizer.encode(text));
      }
    }
    expect(dataset.stats).toMatchObject({ examples: 6, ignoredKeys: [] });
  });

  test("as bytes alone", async () => {
    const dataset = await open("binary", options());
    for (const [i, name] of names.entries()) {
      const { pixelValues, labels } = await dataset.get(i);
      expect(pixelValues!.data).toEqual(await pixelsOf(name));
      expect(labels).toEqual(processor.tokenizer.encode(name));
    }
    expect(dataset.stats?.ignoredKeys).toEqual(["unused"]);
  });

  test("a bad one is named by its item", async () => {
    const bytes = readFileSync(pathOf("captions"));
    // The signature of the second picture, a JPEG.
    const at = bytes.indexOf(Buffer.from([0xff, 0xd8, 0xff]));
    bytes[at] = 0;
    const source = countingSource("captions.parquet", bytes);
    const error = await dataErrorOf(() => openDataset(source, options()));
    expect(error.message).toContain(
      "captions.parquet, item 2: cmyk.jpg: the file is not a picture (it begins with 00 d8 ff ee).",
    );
  });

  test("a language model does not take them", async () => {
    const error = await dataErrorOf(() => open("captions"));
    expect(error.code).toBe("wrong-kind");
  });
});

describe("a column that is null", () => {
  test("is not there, so that the other one is read", async () => {
    const dataset = await open("nulls");
    expect((await dataset.get(0)).inputIds.slice(0, -1)).toEqual(qwen.encode("first"));
    const error = await dataErrorOf(() => dataset.get(1));
    expect(error.message).toBe(
      `${pathOf("nulls")}, item 2: the row lacks "text"; it has the keys "caption". Rename or add keys.`,
    );
  });
});

describe("memory", () => {
  test("row groups are read one at a time, each once while it is held, and let go by size", async () => {
    const bytes = new Uint8Array(readFileSync(pathOf("pairs"))); // 25 rows in groups of 4
    const reads = async (cacheBytes: number, order: readonly number[]): Promise<number> => {
      let [underWay, most, count] = [0, 0, 0];
      const rows = await parquetRows(
        {
          name: "pairs.parquet",
          size: bytes.length,
          async read(start, end) {
            if (start > 0) count++;
            most = Math.max(most, ++underWay);
            await new Promise((resolve) => setImmediate(resolve));
            underWay--;
            return bytes.slice(start, end);
          },
        },
        { cacheBytes },
      );
      count = 0;
      await Promise.all(order.map((i) => rows.row(i)));
      expect(most).toBe(1);
      return count;
    };
    const perGroup = await reads(1 << 20, [0]);
    expect(perGroup).toBeGreaterThan(0);
    const all = Array.from({ length: 25 }, (_, i) => i);
    expect(await reads(1 << 20, [...all, ...all])).toBe(7 * perGroup);
    // With room for one, neighbours are free and everything else is read again.
    expect(await reads(0, all)).toBe(7 * perGroup);
    expect(await reads(0, [0, 4, 0, 4, 5, 1])).toBe(5 * perGroup);
  });

  test("columns that no row uses are not read", async () => {
    const bytes = readFileSync(pathOf("binary"));
    const source = countingSource("binary.parquet", bytes);
    const rows = await parquetRows(source);
    const row = (await rows.row(0)) as Record<string, unknown>;
    expect(Object.keys(row)).toEqual(["image", "prompt", "completion", "unused"]);
    expect(row["unused"]).toBeUndefined();
    expect((row["image"] as Uint8Array).buffer.byteLength).toBe((row["image"] as Uint8Array).length);
  });
});

describe("damaged files", () => {
  const pairs = new Uint8Array(readFileSync(pathOf("pairs")));

  test.each([
    ["empty", new Uint8Array(0)],
    ["four bytes", new TextEncoder().encode("PAR1")],
    ["no footer", pairs.subarray(0, -20)],
    ["text", new TextEncoder().encode("prompt,completion\na,b\n")],
  ])("%s", async (_, bytes) => {
    const error = await dataErrorOf(() => openDataset(countingSource("x.parquet", bytes)));
    expect(error.code).toBe("bad-parquet");
    expect(error.message).toMatch(
      /^x\.parquet: the parquet file cannot be read: .*\. Copy it again, or write/,
    );
  });

  test("a damaged page names the row it begins with", async () => {
    const bytes = pairs.slice();
    bytes.fill(0xff, 30, 60);
    const error = await dataErrorOf(() =>
      openDataset(countingSource("x.parquet", bytes), { tokenizer: qwen }),
    );
    expect(error.code).toBe("bad-parquet");
    expect(error.message).toMatch(/^x\.parquet, item 1: /);
  });

  test("text that is not UTF-8", async () => {
    const bytes = readFileSync(pathOf("nulls"));
    bytes[bytes.indexOf("first")] = 0xff;
    const error = await dataErrorOf(() =>
      openDataset(countingSource("x.parquet", bytes), { tokenizer: qwen }),
    );
    expect(error.code).toBe("bad-parquet");
  });

  test("a file by another name is known by its first bytes", async () => {
    const dataset = await openDataset(countingSource("rows.jsonl", pairs), { tokenizer: qwen });
    expect(dataset.length).toBe(25);
  });

  test("any damage is a DataError, or leaves rows that can be read", { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(pairs.length - 1), fc.nat(255), async (at, byte) => {
        const bytes = pairs.slice();
        bytes[at] = byte;
        try {
          const dataset = await openDataset(countingSource("x.parquet", bytes), { tokenizer: qwen });
          for (let i = 0; i < Math.min(dataset.length, 30); i++) await dataset.get(i);
        } catch (error) {
          expect(error).toMatchObject({ name: "DataError" });
        }
      }),
      { numRuns: 200 },
    );
  });
});

test("openFile's short reads at the end of a file are an error, not other rows", async () => {
  const source = await openFile(pathOf("pairs"));
  const longer = { ...source, size: source.size + 8 };
  const error = await dataErrorOf(() => openDataset(longer, { tokenizer: qwen }));
  expect(["file-changed", "bad-parquet"]).toContain(error.code);
});

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blobSource, textSource } from "../../src/data/byte-source.ts";
import { memoryDataset, splitDataset } from "../../src/data/combine.ts";
import { expandPaths } from "../../src/data/node.ts";
import { openDataset } from "../../src/data/open-dataset.ts";
import { countingSource, dataErrorOf, vectorTokenizer } from "./support.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "graft-data-"));
  await mkdir(join(directory, "sub", "deep"), { recursive: true });
  await mkdir(join(directory, "empty"));
  await Promise.all([
    writeFile(join(directory, "b.jsonl"), '{"input_ids": [3, 4]}\r\n\r\n{"input_ids": [5]}\r\n'),
    writeFile(
      join(directory, "a.json"),
      '\n[\n {"input_ids": [1]},\n {"input_ids": [2], "labels": [-100]}\n]\n',
    ),
    writeFile(join(directory, "notes.rst"), "not data"),
    writeFile(join(directory, "table.csv"), "a,b\n"),
    writeFile(join(directory, "empty.jsonl"), "\n  \n"),
    writeFile(join(directory, "sub", "c.jsonl"), '\ufeff{"input_ids": [6]}'),
    writeFile(join(directory, "sub", "deep", "d.jsonl"), '{"input_ids": [7]}\n'),
  ]);
});
afterAll(() => rm(directory, { recursive: true }));

const idsOf = async (location: Parameters<typeof openDataset>[0]): Promise<number[][]> => {
  const dataset = await openDataset(location);
  const ids: number[][] = [];
  for (let i = 0; i < dataset.length; i++) ids.push([...(await dataset.get(i)).inputIds]);
  await dataset.close?.();
  return ids;
};

describe("openDataset", () => {
  test("a JSONL file with CRLF and blank lines", async () => {
    expect(await idsOf(join(directory, "b.jsonl"))).toEqual([[3, 4], [5]]);
    const dataset = await openDataset(join(directory, "b.jsonl"));
    expect((await dataset.get(1)).line).toBe(3);
    await dataset.close?.();
    await expect(dataset.get(0)).rejects.toMatchObject({ code: "closed" });
  });

  test("a byte order mark is skipped", async () => {
    expect(await idsOf(join(directory, "sub", "c.jsonl"))).toEqual([[6]]);
  });

  test("a JSON array, whatever its name", async () => {
    expect(await idsOf(join(directory, "a.json"))).toEqual([[1], [2]]);
    expect(await idsOf(textSource("x.jsonl", '[{"input_ids": [1]}]'))).toEqual([[1]]);
    const dataset = await openDataset(textSource("x.json", '[{"input_ids": [1]}, {"input_ids": [-1]}]'));
    expect((await dataErrorOf(() => dataset.get(1))).message).toMatch(
      /^x\.json, item 2: "input_ids" at position 0 is -1/,
    );
    const error = await dataErrorOf(() => openDataset(textSource("x.json", '[\n{"input_ids": [1]},\n]')));
    expect(error.message).toMatch(/^x\.json:3:1: not valid JSON: expected a value, found "\]"/);
  });

  test("a Blob", async () => {
    expect(await idsOf(blobSource("picked.jsonl", new Blob(['{"input_ids": [8]}'])))).toEqual([[8]]);
  });

  test("directories, patterns and lists of them, in order", async () => {
    expect(await idsOf([join(directory, "sub"), join(directory, "b.jsonl")])).toEqual([[6], [3, 4], [5]]);
    expect(await idsOf(join(directory, "?.json*"))).toEqual([[1], [2], [3, 4], [5]]);
    expect(await expandPaths([join(directory, "**", "*.jsonl")])).toEqual(
      ["b.jsonl", "empty.jsonl", "sub/c.jsonl", "sub/deep/d.jsonl"].map((name) => join(directory, name)),
    );
  });

  test("joined files keep their own places in errors and sum their stats", async () => {
    const dataset = await openDataset([
      textSource("a.jsonl", '{"input_ids": [1, 2]}'),
      textSource("b.jsonl", '{"input_ids": [3], "note": 1}\n{"input_ids": [-3]}'),
    ]);
    expect([dataset.name, dataset.length]).toEqual(["a.jsonl, b.jsonl", 3]);
    await dataset.get(0);
    await dataset.get(1);
    expect(dataset.stats).toMatchObject({
      examples: 2,
      tokens: 3,
      labelTokens: 1,
      withoutLabels: 1,
      ignoredKeys: ["note"],
    });
    expect((await dataErrorOf(() => dataset.get(2))).message).toMatch(/^b\.jsonl:2: /);
    await expect(dataset.get(3)).rejects.toThrow(RangeError);
  });

  test.each([
    ["missing.jsonl", "unreadable", /missing\.jsonl: there is no such file\. Check the path\./],
    ["*.nothing", "no-files", /no file matches this pattern/],
    ["empty", "no-files", /the directory has no \.jsonl, \.json or \.txt file/],
    ["notes.rst", "unknown-format", /the extension "\.rst" says nothing about the format\. Name it \.jsonl/],
    ["table.csv", "unknown-format", /Convert it to JSONL/],
    ["empty.jsonl", "empty", /the file has no rows/],
    ["b.jsonl/x", "unreadable", /not a directory/],
  ])("%s is an error", async (name, code, message) => {
    const error = await dataErrorOf(() => openDataset(join(directory, name)));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test("no locations, a bad maxLength, text without a tokenizer", async () => {
    expect((await dataErrorOf(() => openDataset([]))).code).toBe("no-files");
    expect((await dataErrorOf(() => openDataset([], { maxLength: 1 }))).code).toBe("max-length");
    expect((await dataErrorOf(() => openDataset(textSource("a.txt", "x")))).code).toBe("no-tokenizer");
  });

  test("files are closed when one of them fails", async () => {
    let closed = 0;
    const source = (content: string) => ({
      ...countingSource("a.jsonl", new TextEncoder().encode(content)),
      close: async () => {
        closed++;
      },
    });
    await dataErrorOf(() => openDataset([source('{"input_ids": [1]}'), source("oops")]));
    expect(closed).toBe(2);
  });

  test("rows and text mix in one list of files", async () => {
    const tokenizer = await vectorTokenizer("byte-level");
    const dataset = await openDataset(
      [
        textSource("a.txt", "one two"),
        textSource("b.txt", "three"),
        textSource("c.jsonl", '{"text": "four"}'),
      ],
      { tokenizer, blockSize: 4 },
    );
    const ids: number[] = [];
    for (let i = 0; i < dataset.length; i++) ids.push(...(await dataset.get(i)).inputIds);
    expect(tokenizer.decode(ids)).toBe("one two<|im_end|>three<|im_end|>four<|im_end|>");
  });
});

describe("splitDataset", () => {
  const dataset = memoryDataset(Array.from({ length: 20 }, (_, i) => ({ inputIds: [i], labels: [i] })));
  const idsIn = async (part: typeof dataset): Promise<number[]> =>
    Promise.all(Array.from({ length: part.length }, async (_, i) => (await part.get(i)).inputIds[0]!));

  test("parts are disjoint, complete, in order, and the same for the same seed", async () => {
    const split = splitDataset(dataset, { fraction: 0.2 }, 7);
    const [train, heldOut] = [await idsIn(split.train), await idsIn(split.heldOut)];
    expect([train.length, heldOut.length]).toEqual([16, 4]);
    expect([...train, ...heldOut].sort((a, b) => a - b)).toEqual([...Array(20).keys()]);
    for (const part of [train, heldOut]) expect(part).toEqual([...part].sort((a, b) => a - b));
    expect(await idsIn(splitDataset(dataset, { count: 4 }, 7).heldOut)).toEqual(heldOut);
    expect(await idsIn(splitDataset(dataset, { count: 4 }, 8).heldOut)).not.toEqual(heldOut);
    expect(splitDataset(dataset, { fraction: 0.001 }).heldOut.length).toBe(1);
    expect(splitDataset(dataset, { fraction: 0.999 }).train.length).toBe(1);
  });

  test.each([{ fraction: 0 }, { fraction: 1 }, { count: 0 }, { count: 20 }, { count: 1.5 }])(
    "refuses %j",
    async (part) => {
      const error = await dataErrorOf(() => splitDataset(dataset, part));
      expect(error.code).toBe("held-out");
      expect(error.message).toContain("of 20 examples. Both parts need at least one");
    },
  );
});

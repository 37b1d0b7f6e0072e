import { describe, expect, test } from "vitest";
import { textSource } from "../../src/data/byte-source.ts";
import { cutPosition, TextDataset } from "../../src/data/text-dataset.ts";
import type { Dataset } from "../../src/data/types.ts";
import { countingSource, dataErrorOf, vectorTokenizer } from "./support.ts";

const tokensOf = async (dataset: Dataset): Promise<number[]> => {
  const ids: number[] = [];
  for (let i = 0; i < dataset.length; i++) ids.push(...(await dataset.get(i)).inputIds);
  return ids;
};

const document = [
  "In the beginning God created the heaven and the earth.",
  "  indented line, trailing space ",
  "",
  "",
  "日本語のテキスト 🎉 café",
  "\tTab. Numbers 1234567 (brackets)!",
  "don't 'quote' DON'T",
  "---",
  "## heading",
].join("\n");
const long = Array.from({ length: 12 }, () => document).join("\r\n\n");
const windows = long.replace(/\r?\n/g, "\r\n");

describe.each([
  "byte-level",
  "qwen",
  "llama3",
  "llama-legacy",
  "llama-class",
  "llama-metaspace",
  "tiny-llama",
])("TextDataset with %s", async (name) => {
  const tokenizer = await vectorTokenizer(name);

  test.each([
    ["LF", long],
    ["CRLF", windows],
  ])("tokens of pieces are the tokens of the whole, for any chunk size: %s", async (_, text) => {
    const whole = [...tokenizer.encode(text), tokenizer.eosTokenId!];
    if (whole.length % 16 === 1) whole.pop(); // a single token left over is dropped
    for (const chunkBytes of [1, 7, 64, 300, 1 << 20]) {
      const dataset = await TextDataset.open([textSource("a.txt", text)], {
        tokenizer,
        blockSize: 16,
        chunkBytes,
      });
      expect(await tokensOf(dataset)).toEqual(whole);
      expect(dataset.length).toBe(Math.ceil(whole.length / 16));
    }
  });

  test("documents are joined, each with its start and end token", async () => {
    const dataset = await TextDataset.open([textSource("a.txt", "one two"), textSource("b.txt", "three")], {
      tokenizer,
      blockSize: 4,
    });
    const eos = tokenizer.eosTokenId!;
    const expected = [...tokenizer.encode("one two"), eos, ...tokenizer.encode("three"), eos];
    const tokens = await tokensOf(dataset);
    expect(tokens).toEqual(expected.slice(0, tokens.length));
    expect(expected.length - tokens.length).toBe(expected.length % 4 === 1 ? 1 : 0);
    const example = await dataset.get(0);
    expect(example.labels).toEqual(example.inputIds);
    expect(example.file).toBe("a.txt");
    expect((await dataset.get(dataset.length - 1)).file).toBe("b.txt");
    expect(dataset.stats.tokens).toBe(tokens.length);
  });
});

describe("TextDataset", async () => {
  const tokenizer = await vectorTokenizer("byte-level");

  test.each([
    ["one\ntwo", 4],
    ["one\ntwo\nthree", 8],
    ["one\ntwo\n", 4], // more line breaks may follow
    ["one\ntwo\n\nthree", 4], // GPT-2 splits "\n\n" before a word, but not at the end of a text
    ["one\ntwo \nthree", 4],
    ["one\ntwo\n three", 4],
    ["one\r\ntwo", 3],
    ["one\r\n\r\ntwo", 3],
    ["one.\r\ntwo", 0], // Qwen joins "." and the line break
    ["\none", 0],
    ["one", 0],
  ])("%j is cut at %i", (text, position) => {
    expect(cutPosition(text)).toBe(position);
  });

  test("a single token left over is dropped, more are a short block", async () => {
    const ids = tokenizer.encode(document);
    for (const blockSize of [ids.length - 1, ids.length - 2]) {
      const dataset = await TextDataset.open([textSource("a.txt", document)], {
        tokenizer,
        blockSize,
        appendEos: false,
      });
      expect(dataset.length).toBe(ids.length - blockSize === 1 ? 1 : 2);
    }
  });

  test("text without line breaks", async () => {
    const text = "word ".repeat(500);
    const dataset = await TextDataset.open([textSource("a.txt", text)], {
      tokenizer,
      chunkBytes: 10,
      appendEos: false,
    });
    expect(await tokensOf(dataset)).toEqual(tokenizer.encode(text));
  });

  test("a byte order mark is not text; bad UTF-8 is named by offset, across chunks", async () => {
    const marked = await TextDataset.open([textSource("a.txt", "\ufeffone two")], {
      tokenizer,
      appendEos: false,
    });
    expect(await tokensOf(marked)).toEqual(tokenizer.encode("one two"));
    const bytes = Uint8Array.from([...new TextEncoder().encode("fine 日本 "), 0xe6, 0x97, 0x20, 0x61]);
    for (const chunkBytes of [1, 2, 3, 5, 100]) {
      const error = await dataErrorOf(() =>
        TextDataset.open([countingSource("a.txt", bytes)], { tokenizer, chunkBytes }),
      );
      expect(error.message).toMatch(/^a\.txt: byte 0xE6 at offset 12 is not valid UTF-8/);
    }
  });

  test.each([
    ["", {}, "empty"],
    ["text", { blockSize: 1 }, "block-size"],
    ["text", { vocabSize: 10 }, "token-out-of-range"],
  ])("%j with %j is an error", async (text, options, code) => {
    expect(
      (await dataErrorOf(() => TextDataset.open([textSource("a.txt", text)], { tokenizer, ...options })))
        .code,
    ).toBe(code);
  });
});

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { textSource } from "../../src/data/byte-source.ts";
import { encodeCut } from "../../src/data/decoder-rows.ts";
import { type OpenDatasetOptions, openDataset } from "../../src/data/open-dataset.ts";
import type { RowDataset } from "../../src/data/row-dataset.ts";
import { AutoTokenizer, type Tokenizer } from "../../src/data/tokenizer.ts";
import type { ImageSource, RowProcessor } from "../../src/data/types.ts";
import { zeros } from "../../src/tensor/index.ts";
import { dataErrorOf, vectorTokenizer } from "./support.ts";

const vectors = (path: string): string => fileURLToPath(new URL(`../vectors/${path}`, import.meta.url));

let bart: Tokenizer; // <s> text </s>
let qwen: Tokenizer; // no special tokens
beforeAll(async () => {
  bart = await AutoTokenizer.fromPretrained(vectors("processing/current"));
  qwen = await vectorTokenizer("qwen");
});

const open = (rows: unknown[], options: OpenDatasetOptions = {}) =>
  openDataset(textSource("rows.jsonl", rows.map((row) => JSON.stringify(row)).join("\n")), {
    architecture: "encoder-decoder",
    ...options,
  });
const firstOf = async (row: unknown, options: OpenDatasetOptions = {}) => (await open([row], options)).get(0);
const errorOf = (rows: unknown[], options: OpenDatasetOptions = {}) =>
  dataErrorOf(async () => {
    const dataset = await open(rows, options);
    for (let i = 0; i < dataset.length; i++) await dataset.get(i);
  });

/** Three placeholders before the prompt's characters between 0 and 2; remembers what it was asked for. */
function fakeProcessor(): RowProcessor & { read: ImageSource[]; checked: ImageSource[] } {
  const characters = (text: string): number[] => [...text].map((c) => c.charCodeAt(0));
  const read: ImageSource[] = [];
  const checked: ImageSource[] = [];
  return {
    read,
    checked,
    encodePrompt: (prompt) => [9, 9, 9, 0, ...characters(prompt), 2],
    encodeCompletion: (text) => [0, ...characters(text), 2],
    async readPixels(image) {
      read.push(image);
      return zeros("float32", [3, 2, 2]);
    },
    async checkImage(image) {
      checked.push(image);
    },
  };
}

describe("prompt and completion", () => {
  test("the encoder reads the one and the decoder writes the other, both with special tokens", async () => {
    const example = await firstOf({ prompt: "What is it?", completion: "a" }, { tokenizer: bart });
    expect(example).toEqual({
      inputIds: bart.encode("What is it?"),
      labels: [0, 68, 2],
      file: "rows.jsonl",
      line: 1,
    });
    expect(example.inputIds.slice(-1)).toEqual([2]);
  });

  test("an end token is added to the completion only on request, where the tokenizer has none of its own", async () => {
    const row = { prompt: "x", completion: "y" };
    const plain = await firstOf(row, { tokenizer: qwen });
    expect(plain.labels).toEqual(qwen.encode("y"));
    const ended = await firstOf(row, { tokenizer: qwen, appendEos: true });
    expect(ended.labels).toEqual([...qwen.encode("y"), qwen.eosTokenId]);
    expect(ended.inputIds).toEqual(qwen.encode("x"));
    expect(await firstOf(row, { tokenizer: bart, appendEos: true })).toEqual(
      await firstOf(row, { tokenizer: bart }),
    );
    const long = { prompt: "x", completion: "one two three four five" };
    const cut = await firstOf(long, { tokenizer: qwen, appendEos: true, maxLength: 3 });
    expect(cut.labels).toEqual([...qwen.encode(long.completion).slice(0, 2), qwen.eosTokenId]);
  });

  test("each side is cut by itself, and the row counted once", async () => {
    const dataset = await open(
      [
        { prompt: "aaaa aaaa aaaa", completion: "a" },
        { prompt: "a", completion: "aaaa aaaa aaaa" },
        { prompt: "a", completion: "a" },
      ],
      { tokenizer: bart, textLimit: 4 },
    );
    const examples = await Promise.all([0, 1, 2].map((i) => dataset.get(i)));
    expect(examples.map(({ inputIds, labels }) => [inputIds, labels])).toEqual([
      [
        [0, 68, 68, 2],
        [0, 68, 2],
      ],
      [
        [0, 68, 2],
        [0, 68, 68, 2],
      ],
      [
        [0, 68, 2],
        [0, 68, 2],
      ],
    ]);
    expect(dataset.stats).toMatchObject({ examples: 3, truncated: 2, tokens: 10, labelTokens: 10 });
  });

  test.each([
    [{ prompt: "", completion: "" }, {}, "no-tokens", '"prompt" and "completion" are both empty'],
    [{ prompt: "a", completion: 5 }, {}, "wrong-type", '"completion" must be text, got number 5'],
    [{ prompt: "a", completion: "b" }, { vocabSize: 60 }, "token-out-of-range", "the token at position 1 is"],
    [
      { prompt: "a", completion: "b" },
      { tokenizer: undefined },
      "no-tokenizer",
      'a row of "prompt", "completion" needs a',
    ],
    [{ prompt: "a" }, {}, "missing-keys", 'the row has the keys "prompt"; expected {"prompt", "completion"}'],
    [{ text: "a" }, {}, "wrong-kind", "the row is of kind text, which is for language models"],
    [
      { messages: [{ role: "assistant", content: "a" }] },
      {},
      "wrong-kind",
      "the row is of kind messages, which is for language models",
    ],
  ])("refuses %j with %j", async (row, options, code, message) => {
    const error = await errorOf([row], { tokenizer: bart, ...options });
    expect(error.code).toBe(code);
    expect(error.message).toContain(`rows.jsonl:1: ${message}`);
  });

  test("a completion without a token", async () => {
    const error = await errorOf([{ prompt: "a", completion: "" }], { tokenizer: qwen });
    expect(error.message).toBe(
      'rows.jsonl:1: "completion" has no tokens, and the tokenizer adds none. Give it text, or pass appendEos.',
    );
  });

  test("kinds and files that are for language models", async () => {
    const chats = await errorOf([{ prompt: "a", completion: "b" }], { tokenizer: bart, kind: "messages" });
    expect(chats.code).toBe("wrong-kind");
    expect(chats.message).toContain(
      "rows of kind messages are not for an encoder–decoder, which reads input-ids",
    );
    const text = await dataErrorOf(() =>
      openDataset(textSource("a.txt", "x y z"), { architecture: "encoder-decoder", tokenizer: bart }),
    );
    expect(text.message).toMatch(/^a\.txt: plain text is for language models/);
  });
});

describe("cutting", () => {
  type Case = { tokenizer: string; text: string; limit: number; whole: number[]; cut: number[] };
  const cases = JSON.parse(readFileSync(vectors("data/truncation.json"), "utf8")) as Case[];

  test.each([...new Set(cases.map(({ tokenizer }) => tokenizer))])("%s as transformers", async (name) => {
    const tokenizer = await AutoTokenizer.fromPretrained(vectors(name));
    const mine = cases.filter((entry) => entry.tokenizer === name);
    expect(mine.length).toBe(40);
    for (const { text, limit, whole, cut } of mine) {
      expect(encodeCut(text, tokenizer, limit, { file: "x" })).toEqual({
        ids: cut,
        truncated: cut.length < whole.length,
      });
    }
  });

  test("special tokens stay around any text", () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 2, max: 30 }), (text, limit) => {
        const whole = bart.encode(text);
        const { ids, truncated } = encodeCut(text, bart, limit, { file: "x" });
        expect(ids.length).toBe(Math.min(whole.length, limit));
        expect(truncated).toBe(whole.length > limit);
        expect(ids).toEqual([...whole.slice(0, ids.length - 1), 2]);
      }),
    );
  });

  test("no room for the special tokens", async () => {
    const error = await errorOf([{ prompt: "a", completion: "b" }], { tokenizer: bart, textLimit: 1 });
    expect(error.message).toBe(
      "rows.jsonl:1: the tokenizer adds 2 tokens to every text, more than the limit of 1. Raise maxLength.",
    );
  });
});

describe("token ids", () => {
  test("labels are the decoder's, of any length, and nothing of either is changed", async () => {
    const row = { input_ids: [5, 1, 1], labels: [-100, 7] };
    expect(await firstOf(row)).toEqual({
      inputIds: [5, 1, 1],
      labels: [-100, 7],
      file: "rows.jsonl",
      line: 1,
    });
    const masked = { input_ids: [5, 6, 1, 1], attention_mask: [1, 1, 0, 0], labels: [3, 4, 5, 6, 7] };
    expect(await firstOf(masked)).toMatchObject({ inputIds: [5, 6], labels: [3, 4, 5, 6, 7] });
  });

  test("every label counts but -100, the first one too", async () => {
    const dataset = await open([
      { input_ids: [1, 2, 3], labels: [5, -100, 6] },
      { input_ids: [1], labels: [7] },
      { input_ids: [1], labels: [-100] },
    ]);
    for (const index of [0, 1, 2, 1]) await dataset.get(index);
    expect(dataset.stats).toMatchObject({ examples: 3, tokens: 5, labelTokens: 3, withoutLabels: 1 });
  });

  test("they are cut to maxLength, and refused beyond the model's positions", async () => {
    const row = { input_ids: [1, 2, 3, 4], labels: [1, 2, 3] };
    expect(await firstOf(row, { maxLength: 2 })).toMatchObject({ inputIds: [1, 2], labels: [1, 2] });
    expect(await firstOf(row, { maxLength: 3, textLimit: 3 })).toMatchObject({ inputIds: [1, 2, 3] });
    const error = await errorOf([row], { textLimit: 3 });
    expect(error.code).toBe("too-long");
    expect(error.message).toBe(
      'rows.jsonl:1: "input_ids" has 4 values, more than the model\'s positions, which are 3. Shorten the row.',
    );
  });

  test.each([
    [{ input_ids: [1] }, "missing-keys", 'the row lacks "labels"'],
    [{ input_ids: [1], labels: null }, "missing-keys", 'the row lacks "labels"'],
    [{ input_ids: [1], labels: [] }, "no-tokens", '"labels" is empty'],
    [{ input_ids: [], labels: [1] }, "no-tokens", "the row has no tokens"],
    [{ input_ids: [1], labels: [50] }, "token-out-of-range", '"labels" at position 0 is 50'],
    [{ input_ids: [1], labels: ["a"] }, "wrong-type", '"labels"[0] must be an integer'],
    [
      { input_ids: [0, 1], labels: [1], attention_mask: [0, 1] },
      "masked-start",
      '"attention_mask" begins with 1',
    ],
    [
      { input_ids: [1, 2], labels: [1], attention_mask: [1] },
      "length-mismatch",
      '"attention_mask" has 1 values',
    ],
  ])("refuses %j", async (row, code, message) => {
    const good = { input_ids: [1], labels: [1] };
    const error = await errorOf([good, row], { vocabSize: 50 });
    expect(error.code).toBe(code);
    expect(error.message).toContain(`rows.jsonl:2: ${message}`);
    const validated = await dataErrorOf(() => open([good, row], { vocabSize: 50, validate: true }));
    expect(validated.message).toBe(error.message);
  });
});

describe("pictures", () => {
  test("a picture, its prompt and what is to be written", async () => {
    const processor = fakeProcessor();
    const row = { image: "a.png", prompt: "hi", completion: "yo" };
    const dataset = await open([row], { processor });
    expect((dataset as RowDataset).kind).toBe("image-text");
    expect(await dataset.get(0)).toMatchObject({
      inputIds: [9, 9, 9, 0, 104, 105, 2],
      labels: [0, 121, 111, 2],
      pixelValues: { shape: [3, 2, 2] },
      line: 1,
    });
    expect(processor.read).toEqual([{ path: "a.png" }]);
    expect(dataset.stats).toMatchObject({ tokens: 7, labelTokens: 4, ignoredKeys: [] });
    // Without the picture, uncounted: to learn how long the rows are.
    expect(await (dataset as RowDataset).getText(0)).toEqual({
      inputIds: [9, 9, 9, 0, 104, 105, 2],
      labels: [0, 121, 111, 2],
      file: "rows.jsonl",
      line: 1,
    });
    expect(processor.read.length).toBe(1);
  });

  test.each([
    [{ file_name: "a.png", text: "yo" }, []],
    [{ file_name: "a.png", caption: "yo", label: 3 }, ["label"]],
    [{ image: "a.png", completion: "yo" }, []],
    [{ image: "a.png", prompt: null, completion: "yo", text: "other" }, ["text"]],
  ])("%j takes the prompt of all rows", async (row, ignoredKeys) => {
    const dataset = await open([row], { processor: fakeProcessor(), prompt: "hi" });
    expect(await dataset.get(0)).toMatchObject({
      inputIds: [9, 9, 9, 0, 104, 105, 2],
      labels: [0, 121, 111, 2],
    });
    expect(dataset.stats?.ignoredKeys).toEqual(ignoredKeys);
  });

  test("where a picture is looked for", async () => {
    const find = async (image: unknown, name: string) => {
      const processor = fakeProcessor();
      const source = textSource(name, JSON.stringify({ image, prompt: "a", completion: "b" }));
      await (await openDataset(source, { architecture: "encoder-decoder", processor })).get(0);
      return processor.read[0];
    };
    expect(await find("a.png", "data/rows.jsonl")).toEqual({ path: "data/a.png" });
    expect(await find("../a.png", "/data/x/rows.jsonl")).toEqual({ path: "/data/x/../a.png" });
    expect(await find("/pictures/a.png", "data/rows.jsonl")).toEqual({ path: "/pictures/a.png" });
    expect(await find("C:\\a.png", "data\\rows.jsonl")).toEqual({ path: "C:\\a.png" });
    expect(await find("sub/a.png", "data\\rows.jsonl")).toEqual({ path: "data\\sub/a.png" });
    expect(await find("data:image/png;base64,AAAA", "x.jsonl")).toEqual({
      url: "data:image/png;base64,AAAA",
    });
    expect(await find({ bytes: null, path: "a.png" }, "data/x.jsonl")).toEqual({ path: "data/a.png" });
  });

  test("prompts are cut at their end, completions keep theirs, placeholders stay", async () => {
    const row = { image: "a.png", prompt: "abcdef", completion: "abcdef" };
    const dataset = await open([row], { processor: fakeProcessor(), textLimit: 6 });
    expect(await dataset.get(0)).toMatchObject({
      inputIds: [9, 9, 9, 0, 97, 98],
      labels: [0, 97, 98, 99, 100, 2],
    });
    expect(dataset.stats).toMatchObject({ truncated: 1 });
    const limited = await errorOf([row], { processor: fakeProcessor(), textLimit: 2 });
    expect(limited.message).toBe(
      "rows.jsonl:1: the picture takes 3 tokens, more than the model's 2. The processor belongs to another model: use this model's.",
    );
    const cut = await errorOf([row], { processor: fakeProcessor(), textLimit: 100, maxLength: 2 });
    expect(cut.message).toContain("more than maxLength's 2. Raise maxLength: a picture cannot be cut.");
  });

  const good = { image: "a.png", prompt: "a", completion: "b" };
  test.each([
    [{ image: "a.png", prompt: "a" }, "missing-keys", 'the row lacks "completion"'],
    [{ prompt: "a", completion: "b" }, "missing-keys", 'the row lacks "image"'],
    [{ imgae: "a.png", prompt: "a", completion: "b" }, "missing-keys", 'Rename "imgae" to "image"'],
    [
      { image: 5, prompt: "a", completion: "b" },
      "wrong-type",
      '"image" must be a picture\'s path or a data URL, got number 5',
    ],
    [{ image: "", prompt: "a", completion: "b" }, "wrong-type", "got empty text"],
    [{ file_name: null, text: "b", prompt: "a" }, "wrong-type", '"file_name" must be a picture\'s path'],
    [{ image: "a.png", prompt: 1, completion: "b" }, "wrong-type", '"prompt" must be text'],
    [{ image: "a.png", prompt: "a", text: ["b"] }, "wrong-type", '"text" must be text'],
    [{ image: "a.png", completion: "b" }, "no-prompt", 'the row has no "prompt"'],
    [{ image: "a.png", prompt: "a", text: "b", caption: "c" }, "ambiguous-row", 'both "text" and "caption"'],
    [
      { pixel_values_file: "a.npy", input_ids: [1], labels: [1] },
      "mixed-kinds",
      "the row is of kind pixel-values, but the rows before it are of kind image-text",
    ],
  ])("refuses %j", async (row, code, message) => {
    const error = await errorOf([good, row], { processor: fakeProcessor() });
    expect(error.code).toBe(code);
    expect(error.message).toContain("rows.jsonl:2: ");
    expect(error.message).toContain(message);
    const validated = await dataErrorOf(() =>
      open([good, row], { processor: fakeProcessor(), validate: true }),
    );
    expect(validated.message).toBe(error.message);
  });

  test("rows without a picture first, then one with", async () => {
    const error = await errorOf([{ prompt: "a", completion: "b" }, good], {
      processor: fakeProcessor(),
      tokenizer: bart,
    });
    expect(error.message).toContain("rows.jsonl:2: the row is of kind image-text, but the rows before it");
    // Read as text on purpose.
    const text = await open([good], { tokenizer: bart, kind: "prompt-completion", pictures: false });
    expect(await text.get(0)).not.toHaveProperty("pixelValues");
    expect(text.stats?.ignoredKeys).toEqual(["image"]);
  });

  test("validate checks every picture once and reads none", async () => {
    const processor = fakeProcessor();
    await open([good, { ...good, image: "b.png" }], { processor, validate: true });
    expect(processor.checked).toEqual([{ path: "a.png" }, { path: "b.png" }]);
    expect(processor.read).toEqual([]);
  });

  test("models that read no pictures", async () => {
    const decoder = await errorOf([good], { architecture: "decoder", tokenizer: bart });
    expect(decoder.code).toBe("wrong-kind");
    expect(decoder.message).toContain(
      'rows.jsonl:1: the row has a picture ("image"), which a language model',
    );
    const asked = await errorOf([good], { architecture: "decoder", tokenizer: bart, kind: "image-text" });
    expect(asked.message).toContain(
      "rows of kind image-text are not for a language model, which reads input-ids",
    );
    const text = await errorOf([good], { tokenizer: bart, pictures: false });
    expect(text.message).toContain("rows.jsonl:1: the row has a picture, and this model reads none.");
    const lacking = await errorOf([good], { tokenizer: bart });
    expect(lacking.code).toBe("no-processor");
    // Language models go on reading the text beside other keys when asked to, and files' names are no pictures to them.
    const text2 = await open([good], { architecture: "decoder", tokenizer: bart, kind: "prompt-completion" });
    expect((await text2.get(0)).labels.length).toBeGreaterThan(0);
    expect(text2.stats?.ignoredKeys).toEqual(["image"]);
    const named = await open([{ file_name: "a.txt", text: "b" }], {
      architecture: "decoder",
      tokenizer: bart,
    });
    expect((named as RowDataset).kind).toBe("text");
  });
});

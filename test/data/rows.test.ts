import { beforeAll, describe, expect, test } from "vitest";
import { textSource } from "../../src/data/byte-source.ts";
import { type OpenDatasetOptions, openDataset } from "../../src/data/open-dataset.ts";
import type { Tokenizer } from "../../src/data/tokenizer.ts";
import { dataErrorOf, vectorTokenizer } from "./support.ts";

let bytes: Tokenizer; // byte-level, no start token
let llama: Tokenizer; // sentencepiece-like, starts with <s>
let qwen: Tokenizer; // ChatML with generation tags
beforeAll(async () => {
  [bytes, llama, qwen] = (await Promise.all(
    ["byte-level", "llama-metaspace", "qwen"].map(vectorTokenizer),
  )) as [Tokenizer, Tokenizer, Tokenizer];
});

const open = (rows: unknown[], options: OpenDatasetOptions = {}) =>
  openDataset(textSource("rows.jsonl", rows.map((row) => JSON.stringify(row)).join("\n")), options);
const firstOf = async (row: unknown, options: OpenDatasetOptions = {}) => (await open([row], options)).get(0);
const errorOf = (rows: unknown[], options: OpenDatasetOptions = {}) =>
  dataErrorOf(async () => {
    const dataset = await open(rows, options);
    for (let i = 0; i < dataset.length; i++) await dataset.get(i);
  });

describe("text", () => {
  test("every token is learned and the end token is appended once", async () => {
    const ids = llama.encode("In the beginning");
    const example = await firstOf({ text: "In the beginning" }, { tokenizer: llama });
    expect(example).toEqual({ inputIds: [...ids, 2], labels: [...ids, 2], file: "rows.jsonl", line: 1 });
    expect((await firstOf({ text: "x</s>" }, { tokenizer: llama })).inputIds.slice(-2)).not.toEqual([2, 2]);
    expect(
      (await firstOf({ text: "In the beginning" }, { tokenizer: llama, appendEos: false })).inputIds,
    ).toEqual(ids);
  });

  test("is cut to maxLength and counted, once for each row", async () => {
    const dataset = await open([{ text: "one two three four five" }, { text: "a" }], {
      tokenizer: bytes,
      maxLength: 3,
    });
    for (const index of [0, 1, 0, 0]) await dataset.get(index);
    expect((await dataset.get(0)).inputIds).toEqual(bytes.encode("one two three four five").slice(0, 3));
    expect(dataset.stats).toMatchObject({
      examples: 2,
      tokens: 5,
      truncated: 1,
      labelTokens: 3,
      withoutLabels: 0,
    });
  });

  test("other keys are ignored and said", async () => {
    const dataset = await open(
      [
        { text: "a", label: "x" },
        { text: "b", word: 1 },
      ],
      { tokenizer: bytes },
    );
    await dataset.get(0);
    await dataset.get(1);
    expect(dataset.stats?.ignoredKeys).toEqual(["label", "word"]);
  });
});

describe("prompt and completion", () => {
  test("only the completion is learned, and it ends with the end token", async () => {
    const example = await firstOf({ prompt: "Define x:", completion: " a letter." }, { tokenizer: llama });
    const prompt = llama.encode("Define x:");
    const whole = [...llama.encode("Define x: a letter."), 2];
    expect(example.inputIds).toEqual(whole);
    expect(example.labels).toEqual(whole.map((id, i) => (i < prompt.length ? -100 : id)));
  });

  test("a token across the border: the parts are tokenized apart, as generation will see them", async () => {
    for (const tokenizer of [bytes, llama]) {
      const dataset = await open([{ prompt: "In the ", completion: "beginning" }], { tokenizer });
      const example = await dataset.get(0);
      const prompt = tokenizer.encode("In the ");
      expect(example.inputIds.slice(0, prompt.length)).toEqual(prompt);
      expect(example.labels.filter((label) => label !== -100)).toEqual(example.inputIds.slice(prompt.length));
      // No space slips in at the seam.
      expect(tokenizer.decode(example.inputIds, { skipSpecialTokens: true })).toBe("In the beginning");
      expect(dataset.stats?.tokenizedApart).toBe(1);
    }
  });

  test("an empty completion teaches to stop; an empty prompt is allowed", async () => {
    expect((await firstOf({ prompt: "Stop", completion: "" }, { tokenizer: bytes })).labels.at(-1)).toBe(
      bytes.eosTokenId,
    );
    const example = await firstOf({ prompt: "", completion: "go" }, { tokenizer: llama });
    expect(example.labels[0]).toBe(-100); // <s>
    expect(example.inputIds).toEqual([...llama.encode("go"), 2]);
  });

  test("a completion that truncation removes is counted", async () => {
    const dataset = await open([{ prompt: "a long enough prompt", completion: "x" }], {
      tokenizer: bytes,
      maxLength: 4,
    });
    expect((await dataset.get(0)).labels).toEqual([-100, -100, -100, -100]);
    expect(dataset.stats).toMatchObject({ truncated: 1, withoutLabels: 1, labelTokens: 0 });
  });
});

describe("messages", () => {
  const messages = [
    { role: "user", content: "Who was Moses?" },
    { role: "assistant", content: "A prophet." },
  ];

  test("only what the assistant wrote is learned", async () => {
    const example = await firstOf({ messages }, { tokenizer: qwen });
    const learned = example.labels.filter((label) => label !== -100);
    expect(qwen.decode(learned)).toBe("A prophet.<|im_end|>");
    expect(qwen.decode(example.inputIds)).toBe(qwen.applyChatTemplate(messages));
  });

  test("a tokenizer without a chat template is an error at the row", async () => {
    const error = await errorOf([{ messages }], { tokenizer: await vectorTokenizer("tiny-llama") });
    expect(error.code).toBe("no-chat-template");
    expect(error.message).toMatch(/^rows\.jsonl:1: The tokenizer of .*tiny-llama has no chat template/);
  });

  test.each([
    [{ messages: [] }, /"messages" must be a list of \{"role", "content"\}, got an empty list/],
    [{ messages: "hi" }, /got the text "hi"/],
    [{ messages: ["hi"] }, /messages\[0\] must be \{"role", "content"\}, got the text "hi"/],
    [{ messages: [{ rol: "user", content: "a" }] }, /messages\[0\] lacks a "role".*Rename "rol" to "role"/],
    [
      { messages: [{ role: "user", contents: "a" }] },
      /messages\[0\] lacks "content".*Rename "contents" to "content"/,
    ],
    [{ messages: [{ role: "user", content: 5 }] }, /messages\[0\]\.content must be text, got number 5/],
    [
      {
        messages: [
          { role: "user", content: "a" },
          { role: "asistant", content: "b" },
        ],
      },
      /no message has the role "assistant".*Rename "asistant"/,
    ],
    [{ messages, tools: 5 }, /"tools" must be a list of JSON schemas/],
  ])("refuses %j", async (row, message) => {
    expect((await errorOf([row], { tokenizer: qwen })).message).toMatch(message);
  });
});

describe("input_ids", () => {
  test("labels default to the ids", async () => {
    expect(await firstOf({ input_ids: [1, 2, 3] })).toMatchObject({ inputIds: [1, 2, 3], labels: [1, 2, 3] });
    expect(await firstOf({ input_ids: [1, 2], labels: [-100, 2] })).toMatchObject({ labels: [-100, 2] });
  });

  test("padding at the ends is dropped", async () => {
    const row = {
      input_ids: [0, 0, 5, 6, 0],
      labels: [-100, -100, 5, 6, -100],
      attention_mask: [0, 0, 1, 1, 0],
    };
    expect(await firstOf(row)).toMatchObject({ inputIds: [5, 6], labels: [5, 6] });
  });

  test.each([
    [{ input_ids: [1, 2], labels: [1] }, "length-mismatch", '"labels" has 1 values, "input_ids" has 2'],
    [{ input_ids: [1, 2], attention_mask: [1] }, "length-mismatch", '"attention_mask" has 1 values'],
    [{ input_ids: [1, 2.5] }, "wrong-type", '"input_ids"[1] must be an integer, got number 2.5'],
    [{ input_ids: [1, "2"] }, "wrong-type", '"input_ids"[1] must be an integer, got the text "2"'],
    [{ input_ids: "1 2" }, "wrong-type", '"input_ids" must be a list of integers, got the text "1 2"'],
    [
      { input_ids: [1, 50] },
      "token-out-of-range",
      '"input_ids" at position 1 is 50, outside the vocabulary (0 to 49)',
    ],
    [{ input_ids: [-1] }, "token-out-of-range", '"input_ids" at position 0 is -1'],
    [{ input_ids: [-100] }, "token-out-of-range", '"input_ids" at position 0 is -100'],
    [
      { input_ids: [1], labels: [-1] },
      "token-out-of-range",
      '"labels" at position 0 is -1, outside the vocabulary (0 to 49, or -100 for no loss)',
    ],
    [
      { input_ids: [1, 2, 3], attention_mask: [1, 0, 1] },
      "masked-inside",
      '"attention_mask"[1] is 0 between tokens',
    ],
    [
      { input_ids: [1, 2], attention_mask: [1, 2] },
      "wrong-type",
      '"attention_mask"[1] is 2; it must be 0 or 1',
    ],
    [{ input_ids: [] }, "no-tokens", "the row has no tokens"],
    [{ input_ids: [1], attention_mask: [0] }, "no-tokens", "the row has no tokens"],
  ])("refuses %j", async (row, code, message) => {
    const error = await errorOf([{ input_ids: [1] }, row], { vocabSize: 50 });
    expect(error.code).toBe(code);
    expect(error.message.startsWith(`rows.jsonl:2: ${message}`), error.message).toBe(true);
    expect(error.details).toMatchObject({ file: "rows.jsonl", line: 2 });
  });
});

describe("rows that cannot be used", () => {
  test.each([
    [
      { promt: "a", completion: "b" },
      'the row has the keys "promt", "completion"',
      'Rename "promt" to "prompt".',
    ],
    [{ Text: "a" }, 'the row has the keys "Text"', 'Rename "Text" to "text".'],
    [{}, "the row has an empty object", "Rename or add keys."],
    [{ word: "a", definition: "b" }, 'the row has the keys "word", "definition"', "Rename or add keys."],
  ])("missing keys: %j", async (row, start, end) => {
    const error = await errorOf([row], { tokenizer: bytes });
    expect(error.code).toBe("missing-keys");
    expect(error.message).toContain(`rows.jsonl:1: ${start}; expected {"text"}`);
    expect(error.message.endsWith(end), error.message).toBe(true);
  });

  test("kinds that mix are named by line, also with blank lines between", async () => {
    const source = textSource("rows.jsonl", '{"text": "a"}\n\n  \n{"prompt": "a", "completion": "b"}\n');
    const dataset = await openDataset(source, { tokenizer: bytes });
    expect(dataset.length).toBe(2);
    const error = await dataErrorOf(() => dataset.get(1));
    expect(error.code).toBe("mixed-kinds");
    expect(error.message).toMatch(
      /^rows\.jsonl:4: the row is of kind prompt-completion, but the rows before it are of kind text/,
    );
  });

  test("a row of two kinds needs a choice", async () => {
    const row = { text: "a", prompt: "b", completion: "c" };
    expect((await errorOf([row], { tokenizer: bytes })).message).toContain(
      "(prompt-completion, text). Say which with the option kind",
    );
    expect((await firstOf(row, { tokenizer: bytes, kind: "text" })).labels[0]).toBe(bytes.encode("a")[0]);
  });

  test.each([
    ["5", "not-an-object", "got number 5"],
    ["[1]", "not-an-object", "got an array"],
    ["null", "not-an-object", "got null"],
    ['{"text": ""}', "no-tokens", '"text" is empty'],
    ['{"text": null}', "wrong-type", '"text" must be text, got null'],
    ['{"prompt": "", "completion": ""}', "no-tokens", "both empty"],
    [
      '{"prompt": [{"role": "user"}], "completion": "x"}',
      "wrong-type",
      'A conversation goes into "messages"',
    ],
    ['{"text": "a"', "bad-json", 'rows.jsonl:1:13: not valid JSON: expected a comma or "}"'],
  ])("%s", async (line, code, message) => {
    const error = await dataErrorOf(async () =>
      (await openDataset(textSource("rows.jsonl", line), { tokenizer: bytes })).get(0),
    );
    expect(error.code).toBe(code);
    expect(error.message).toContain(message);
  });

  test("tokens beyond the model's vocabulary are found in text too", async () => {
    const error = await errorOf([{ text: "zebra" }], { tokenizer: bytes, vocabSize: 60 });
    expect(error.code).toBe("token-out-of-range");
    expect(error.message).toMatch(
      /^rows\.jsonl:1: the token at position \d+ is \d+, outside the vocabulary \(0 to 59\)\. The tokenizer has more tokens/,
    );
  });

  test("no tokenizer", async () => {
    expect((await errorOf([{ text: "a" }])).code).toBe("no-tokenizer");
  });

  test("appendEos without an end token", async () => {
    const { readTokenizerFiles } = await import("../../src/data/tokenizer-files.ts");
    const { directoryFiles } = await import("../../src/data/node.ts");
    const { Tokenizer } = await import("../../src/data/tokenizer.ts");
    const files = await readTokenizerFiles(
      directoryFiles(new URL("../vectors/tokenizers/tiny-llama", import.meta.url).pathname),
    );
    const { eos_token: _, ...specialTokens } = files.specialTokens;
    const tokenizer = new Tokenizer({ ...files, specialTokens });
    expect((await errorOf([{ text: "a" }], { tokenizer, appendEos: true })).code).toBe("no-eos");
    expect((await firstOf({ text: "a" }, { tokenizer })).inputIds).toEqual(tokenizer.encode("a"));
  });

  test("validate finds all bad rows when the file is opened", async () => {
    const rows = Array.from({ length: 30 }, (_, i) => (i % 2 === 0 ? { text: "a" } : { txt: "b" }));
    const error = await dataErrorOf(() => open(rows, { tokenizer: bytes, validate: true }));
    expect(error.code).toBe("bad-rows");
    expect(error.message).toMatch(
      /^rows\.jsonl: 15 of 30 rows cannot be used:\nrows\.jsonl:2: the row lacks "text"/,
    );
    expect(error.message).toMatch(/\n… and 5 more$/);
    expect(error.details["problems"]).toHaveLength(10);
    const single = await dataErrorOf(() =>
      open([{ text: "a" }, { text: 1 }], { tokenizer: bytes, validate: true }),
    );
    expect(single.message).toMatch(/^rows\.jsonl:2: "text" must be text/);
    await expect(open([{ text: "a" }], { tokenizer: bytes, validate: true })).resolves.toBeDefined();
  });
});

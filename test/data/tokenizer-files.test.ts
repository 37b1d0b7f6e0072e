import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { AutoTokenizer } from "../../src/data/tokenizer.ts";
import { dataErrorOf, memoryStore } from "./support.ts";

const read = (path: string) =>
  JSON.parse(readFileSync(new URL(`../vectors/tokenizers/${path}`, import.meta.url), "utf8"));
const tokenizerJson = read("tiny-llama/tokenizer.json");
const load = (files: Record<string, string | object>) => AutoTokenizer.fromPretrained(memoryStore(files));

describe("AutoTokenizer.fromPretrained", () => {
  test.each([
    [{}, "no-tokenizer", /^model: tokenizer\.json is missing\. Copy it/],
    [
      { "tokenizer.model": "x" },
      "sentencepiece-only",
      /has only a sentencepiece model \(tokenizer\.model\).*save_pretrained/,
    ],
    [
      { "vocab.json": "{}" },
      "no-tokenizer",
      /tokenizer\.json is missing \(there is vocab\.json, an older form\)/,
    ],
    [
      { "tokenizer.json": '{"model": ' },
      "bad-json",
      /^model\/tokenizer\.json:1:11: not valid JSON: expected a value, found the end/,
    ],
    [{ "tokenizer.json": "[]" }, "bad-tokenizer", /^model\/tokenizer\.json: expected a JSON object/],
    [{ "tokenizer.json": { model: {} } }, "bad-tokenizer", /"model\.vocab" is missing/],
    [
      { "tokenizer.json": tokenizerJson, "tokenizer_config.json": "{" },
      "bad-json",
      /^model\/tokenizer_config\.json:1:2/,
    ],
    [
      { "tokenizer.json": tokenizerJson, "tokenizer_config.json": { chat_template: 5 } },
      "bad-tokenizer",
      /"chat_template" must be text or a list/,
    ],
    [
      { "tokenizer.json": { ...tokenizerJson, pre_tokenizer: { type: "Mystery" } } },
      "unsupported-tokenizer",
      /cannot be used: Unknown PreTokenizer type: Mystery\. Tokenize in Python/,
    ],
    [
      {
        "tokenizer.json": {
          ...tokenizerJson,
          pre_tokenizer: { type: "Split", pattern: { Regex: "a" }, behavior: "MergedWithNext" },
        },
      },
      "unsupported-tokenizer",
      /Split pre-tokenizer with behavior "MergedWithNext"/,
    ],
    [
      { "tokenizer.json": { ...tokenizerJson, added_tokens: [{ id: 0, content: "x", single_word: true }] } },
      "unsupported-tokenizer",
      /"x" with single_word/,
    ],
  ])("%j", async (files, code, message) => {
    const error = await dataErrorOf(() => load(files));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test("a directory that is not there, and a URL", async () => {
    expect((await dataErrorOf(() => AutoTokenizer.fromPretrained("/no/such/directory"))).message).toBe(
      "/no/such/directory: there is no such directory. Check the path.",
    );
    expect((await dataErrorOf(() => AutoTokenizer.fromPretrained("https://x.org/m"))).code).toBe(
      "not-a-directory",
    );
  });

  test("without tokenizer_config.json there are no named special tokens", async () => {
    const tokenizer = await load({ "tokenizer.json": tokenizerJson });
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(tokenizer.padTokenIsEos).toBe(false);
    expect([...tokenizer.specialTokenIds]).toEqual([0, 1, 2]);
    expect(tokenizer.decode(tokenizer.encode("In the beginning"), { skipSpecialTokens: true })).toBe(
      "In the beginning",
    );
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([1, 99_999])).toBe("<s>");
  });

  test("the end token stands in for a missing pad token, visibly", async () => {
    const config = { eos_token: "</s>", model_max_length: 512 };
    const tokenizer = await load({ "tokenizer.json": tokenizerJson, "tokenizer_config.json": config });
    expect([tokenizer.padTokenId, tokenizer.padTokenIsEos, tokenizer.maxLength]).toEqual([2, true, 512]);
  });

  test("special_tokens_map.json counts unless added_tokens_decoder is there", async () => {
    const files = {
      "tokenizer.json": tokenizerJson,
      "special_tokens_map.json": { pad_token: { content: "<pad>" } },
    };
    expect((await load({ ...files, "tokenizer_config.json": {} })).padTokenId).toBe(0);
    expect(
      (await load({ ...files, "tokenizer_config.json": { added_tokens_decoder: {} } })).padTokenId,
    ).toBeUndefined();
  });

  test("add_eos_token ends every text, and prompts are not ended by it", async () => {
    const config = { bos_token: "<s>", eos_token: "</s>", add_bos_token: true, add_eos_token: true };
    const tokenizer = await load({ "tokenizer.json": tokenizerJson, "tokenizer_config.json": config });
    const bare = tokenizer.encode("God", { addSpecialTokens: false });
    expect(tokenizer.encode("God")).toEqual([1, ...bare, 2]);
    expect(tokenizer.addsEos).toBe(true);
    const { openDataset, textSource } = await import("../../src/data/index.ts");
    const row = textSource("a.jsonl", '{"prompt": "God", "completion": " said"}');
    const { inputIds, labels } = await (await openDataset(row, { tokenizer })).get(0);
    const said = tokenizer.encode(" said", { addSpecialTokens: false });
    expect(inputIds).toEqual([1, ...bare, ...said, 2]);
    expect(labels).toEqual([-100, ...bare.map(() => -100), ...said, 2]);
  });

  test("chat templates: the .jinja file before tokenizer_config.json before chat_template.json", async () => {
    const base = { "tokenizer.json": tokenizerJson };
    const messages = [{ role: "user", content: "x" }];
    const render = async (files: Record<string, string | object>, options = {}) =>
      (await load({ ...base, ...files })).applyChatTemplate(messages, options);
    const named = {
      chat_template: [
        { name: "default", template: "D" },
        { name: "tool_use", template: "T" },
      ],
    };
    expect(
      await render({ "chat_template.jinja": "J", "tokenizer_config.json": { chat_template: "C" } }),
    ).toBe("J");
    expect(
      await render({
        "chat_template.json": { chat_template: "O" },
        "tokenizer_config.json": { chat_template: "C" },
      }),
    ).toBe("C");
    expect(await render({ "chat_template.json": { chat_template: "O" } })).toBe("O");
    expect(await render({ "tokenizer_config.json": named })).toBe("D");
    expect(await render({ "tokenizer_config.json": named }, { tools: [] })).toBe("T");
    expect(await render({ "tokenizer_config.json": named }, { chatTemplate: "tool_use" })).toBe("T");
    expect(
      await render({ "tokenizer_config.json": named }, { chatTemplate: "{{ messages[0].content }}!" }),
    ).toBe("x!");
    const only = { "tokenizer_config.json": { chat_template: [{ name: "rag", template: "R" }] } };
    expect((await dataErrorOf(() => render(only))).message).toMatch(
      /has no chat template "default", only "rag"/,
    );
    expect((await dataErrorOf(async () => (await load(base)).applyChatTemplate([]))).code).toBe(
      "no-messages",
    );
  });
});

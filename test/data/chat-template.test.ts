import { describe, expect, test } from "vitest";
import { assistantSpans } from "../../src/data/assistant-spans.ts";
import { type ChatMessage, ChatTemplate } from "../../src/data/chat-template.ts";
import { tokenOffsets } from "../../src/data/token-offsets.ts";
import { dataErrorOf, vectorTokenizer } from "./support.ts";

const chat: ChatMessage[] = [
  { role: "user", content: "q1" },
  { role: "assistant", content: "a1" },
  { role: "user", content: "q2" },
  { role: "assistant", content: "a2" },
];

describe("ChatTemplate", () => {
  test("generation blocks are found even if messages hold the markers", () => {
    const template = new ChatTemplate(
      "{% for m in messages %}<{% generation %}{{ m.content }}{% endgeneration %}>{% endfor %}",
    );
    const messages = [{ content: "\ufdd0\ufdd1" }, { content: "" }, { content: "x" }];
    const { text, generated } = template.render({ messages });
    expect(text).toBe("<\ufdd0\ufdd1><><x>");
    expect(generated).toEqual([
      [1, 3],
      [5, 5],
      [7, 8],
    ]);
  });

  test("strftime_now and raise_exception", async () => {
    const year = new Date().getFullYear();
    expect(new ChatTemplate("{{ strftime_now('%Y') }}").render({}).text).toBe(String(year));
    const error = await dataErrorOf(() =>
      new ChatTemplate("{{ raise_exception('No!') }}", "my-model").render({}),
    );
    expect(error.message).toBe("my-model: the chat template refuses these messages: No!");
  });

  test("a template that cannot be parsed", async () => {
    const error = await dataErrorOf(() => new ChatTemplate("{% for %}", "my-model"));
    expect(error.code).toBe("bad-chat-template");
    expect(error.message).toMatch(/^my-model: the chat template cannot be parsed: /);
  });
});

describe("assistantSpans", () => {
  const spans = (template: string, messages = chat, specialTokens = ["<|end|>"]) => {
    const compiled = new ChatTemplate(template);
    const render = (part: readonly ChatMessage[], prompt: boolean) =>
      compiled.render({ messages: part, add_generation_prompt: prompt }).text;
    const text = render(messages, false);
    return assistantSpans(messages, text, { name: "m", specialTokens, render }).map(([start, end]) =>
      text.slice(start, end),
    );
  };
  const base =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

  test("ends with the closing token, not with the white space after it", () => {
    expect(spans(base)).toEqual(["a1<|end|>", "a2<|end|>"]);
    expect(spans(base, chat, [])).toEqual(["a1<|end|>\n", "a2<|end|>\n"]);
  });

  test.each([
    [
      "rewrites earlier turns",
      base.replace("{{ m.content }}", "{{ m.content if loop.last else 'dropped' }}"),
      1,
      /messages\[1\]: a later message changes/,
    ],
    [
      "opens differently than it keeps",
      base.replace("[assistant]{%", "[assistant]<think>{%"),
      1,
      /messages\[1\]: the generation prompt is not how the message begins/,
    ],
  ])("a template that %s is an error", async (_, template, message, expected) => {
    const error = await dataErrorOf(() => spans(template));
    expect(error.code).toBe("chat-template-prefix");
    expect(error.message).toMatch(expected);
    expect(error.message).toContain("{% generation %}");
    expect(error.details["message"]).toBe(message);
  });

  test("an assistant message first is an error", async () => {
    expect((await dataErrorOf(() => spans(base, chat.slice(1)))).message).toContain(
      "messages[0]: no message stands before it",
    );
  });
});

describe("encodeChat", () => {
  test("Llama 2 without generation tags: what follows [/INST]", async () => {
    const tokenizer = await vectorTokenizer("llama-legacy");
    const { inputIds, assistantMask } = tokenizer.encodeChat(chat);
    const learned = inputIds.filter((_, i) => assistantMask[i] === 1);
    expect(tokenizer.decode(learned)).toBe("a1 </s> a2 </s>");
  });

  test.each([
    ["ends inside a token", " {% endgeneration %}the"],
    ["begins inside a token", " th{% generation %}e{% endgeneration %}"],
  ])("a block that %s takes the token", async (_, rest) => {
    const tokenizer = await vectorTokenizer("byte-level");
    const chatTemplate = rest.includes("{% generation %}") ? `a${rest} cat` : `a{% generation %}${rest} cat`;
    const { inputIds, assistantMask, text } = tokenizer.encodeChat(chat, { chatTemplate });
    expect(text).toBe("a the cat");
    expect(inputIds).toHaveLength(tokenizer.encode("a the cat").length);
    const learned = inputIds.filter((_id, i) => assistantMask[i] === 1);
    expect(learned).toEqual(tokenizer.encode(" the"));
    expect(learned).toHaveLength(1);
  });

  test("text that Unicode composition changes is aligned all the same", async () => {
    const tokenizer = await vectorTokenizer("qwen");
    const decomposed = "cafe\u0301";
    const { inputIds, assistantMask } = tokenizer.encodeChat([
      { role: "user", content: decomposed },
      { role: "assistant", content: decomposed },
    ]);
    expect(tokenizer.decode(inputIds.filter((_, i) => assistantMask[i] === 1))).toBe("café<|im_end|>");
  });
});

test("tokenOffsets gives up where a normalizer changed the text", () => {
  const options = { spelling: "literal" as const, addedTokens: new Set<string>() };
  const offsets = (text: string, tokens: string[]) =>
    tokenOffsets(new TextEncoder().encode(text), tokens, options);
  expect(offsets("a b", ["a", "b"])).toEqual([
    { start: 0, end: 1 },
    { start: 2, end: 3 },
  ]);
  expect(offsets("A b", ["a", "b"])).toBeUndefined();
  expect(offsets("a b c", ["a", "b"])).toBeUndefined();
});

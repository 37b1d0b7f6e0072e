import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { ChatMessage } from "../../src/data/chat-template.ts";
import { AutoTokenizer } from "../../src/data/tokenizer.ts";

// Recorded by scripts/record_tokenizers.py from transformers; see manifest.json.
const root = new URL("../vectors/tokenizers/", import.meta.url);
const readJson = (path: string) => JSON.parse(readFileSync(new URL(path, root), "utf8"));

type Case = { ids: number[]; decoded: string; skipped: string };
type Expected = {
  vocabSize: number;
  special: Record<"bos" | "eos" | "pad" | "unk", number | null>;
  specialIds: number[];
  texts: (Case & { text: string; bare: number[] })[];
  decodes: Case[];
  default?: string;
  chats: {
    template: string;
    chat: number;
    addGenerationPrompt: boolean;
    tools?: unknown[];
    text?: string;
    ids?: number[];
    mask?: number[];
    error?: string;
  }[];
};
const { templates, chats } = readJson("chat.json") as {
  templates: Record<string, string>;
  chats: ChatMessage[][];
};

/**
 * Where transformers' mask is not what the template's blocks wrote, with the text that they did write.
 * byte-level: its offsets leave out leading white space (trim_offsets), so that the search for a block's first
 * character fails and the whole mask stays 0; and for an empty block it marks the token after it.
 * llama-legacy: the space that a normalizer puts after a special token hides the line break from the search.
 */
const maskDeviations: Record<string, string> = {
  "byte-level, chatml-generation, 1":
    " A decent attitude. <|im_end|>No — 🎉 it's café\n\nnew paragraph<|im_end|>",
  "byte-level, dashed-generation, 1": " A decent attitude.  No — 🎉 it's café\n\nnew paragraph",
  "byte-level, dashed-generation, 4": "",
  "llama-legacy, multiline-generation, 0": "A prophet.</s> \n",
  "llama-legacy, multiline-generation, 1":
    "A decent attitude.</s> \nNo — 🎉 it's café\n\nnew paragraph</s> \n",
  "llama-legacy, multiline-generation, 3": "b</s> \nd</s> \n",
  "llama-legacy, multiline-generation, 4": "</s> \n",
};

/** Where the Jinja library differs: a string's length counts UTF-16 units, Python's code points. */
const inJinja = (template: string, chat: number, text: string): string =>
  template === "features" && chat === 1 ? text.replace("<31>", "<32>") : text;

const names = [
  "byte-level",
  "qwen",
  "llama-legacy",
  "llama-class",
  "llama-metaspace",
  "llama3",
  "tiny-llama",
];
describe.each(names)("%s, against transformers", async (name) => {
  const expected = readJson(`${name}/expected.json`) as Expected;
  const tokenizer = await AutoTokenizer.fromPretrained(new URL(name, root).pathname);

  test("vocabulary and special tokens", () => {
    expect(tokenizer.vocabSize).toBe(expected.vocabSize);
    expect(tokenizer.bosTokenId ?? null).toBe(expected.special.bos);
    expect(tokenizer.eosTokenId ?? null).toBe(expected.special.eos);
    expect(tokenizer.unkTokenId ?? null).toBe(expected.special.unk);
    expect(tokenizer.padTokenId ?? null).toBe(expected.special.pad ?? expected.special.eos);
    expect(tokenizer.padTokenIsEos).toBe(expected.special.pad === null);
    const named = new Set(Object.values(expected.special).filter((id) => id !== null));
    for (const id of named) expect(tokenizer.specialTokenIds).toContain(id);
  });

  test("encode", () => {
    expect(expected.texts.length).toBeGreaterThan(150);
    for (const { text, ids, bare } of expected.texts) {
      expect({ text, ids: tokenizer.encode(text) }).toEqual({ text, ids });
      expect({ text, bare: tokenizer.encode(text, { addSpecialTokens: false }) }).toEqual({ text, bare });
    }
  });

  test("decode", () => {
    for (const { ids, decoded, skipped } of [...expected.texts, ...expected.decodes]) {
      expect({ ids, decoded: tokenizer.decode(ids) }).toEqual({ ids, decoded });
      const shown = tokenizer.decode(ids, { skipSpecialTokens: true });
      expect({ ids, skipped: shown }).toEqual({ ids, skipped });
    }
  });

  test("encodeContinuation of what follows a line break is what the whole has there", () => {
    for (const text of ["Hello world", " leading", "日本語", "x\ny"]) {
      const whole = tokenizer.encode(`First.\n${text}`, { addSpecialTokens: false });
      const first = tokenizer.encode("First.\n", { addSpecialTokens: false });
      expect([...first, ...tokenizer.encodeContinuation(text)]).toEqual(whole);
    }
  });

  test.runIf(expected.chats.length > 0)("chat templates: text, ids and assistant masks", () => {
    expect(expected.chats).toHaveLength(Object.keys(templates).length * chats.length * 2);
    let masked = 0;
    for (const recorded of expected.chats) {
      const { template, chat, addGenerationPrompt, tools, text, ids, mask, error } = recorded;
      const label = `${template}, chat ${chat}, prompt ${addGenerationPrompt}`;
      const options = { addGenerationPrompt, chatTemplate: templates[template]!, ...(tools && { tools }) };
      const messages = chats[chat]!;
      if (error !== undefined) {
        expect(() => tokenizer.applyChatTemplate(messages, options), label).toThrow(/chat template refuses/);
        continue;
      }
      expect({ label, text: tokenizer.applyChatTemplate(messages, options) }).toEqual({
        label,
        text: inJinja(template, chat, text!),
      });
      if (mask === undefined) continue;
      const encoded = tokenizer.encodeChat(messages, options);
      expect({ label, ids: encoded.inputIds }).toEqual({ label, ids });
      const written = maskDeviations[`${name}, ${template}, ${chat}`];
      if (written === undefined) expect({ label, mask: encoded.assistantMask }).toEqual({ label, mask });
      else {
        expect(encoded.assistantMask, label).not.toEqual(mask);
        const ids = encoded.inputIds.filter((_, i) => encoded.assistantMask[i] === 1);
        expect({ label, written: tokenizer.decode(ids) }).toEqual({ label, written });
      }
      masked += mask.reduce((sum, bit) => sum + bit, 0);
    }
    expect(masked).toBeGreaterThan(50);
  });

  test.runIf(expected.default !== undefined)("the chat template of the files", () => {
    expect(tokenizer.applyChatTemplate(chats[0]!)).toBe(expected.default);
  });

  test.runIf(expected.chats.length > 0)("without generation tags the mask is the same as with them", () => {
    for (const messages of chats.filter((chat) => chat.some(({ role }) => role === "assistant"))) {
      const tagged = tokenizer.encodeChat(messages, { chatTemplate: templates["chatml-generation"]! });
      const plain = tokenizer.encodeChat(messages, { chatTemplate: templates["chatml"]! });
      expect(plain.inputIds).toEqual(tagged.inputIds);
      // "<|im_end|>" is a token only in these vocabularies; elsewhere the template's "\n" after it counts too.
      if (tokenizer.tokenToId("<|im_end|>") !== undefined)
        expect(plain.assistantMask).toEqual(tagged.assistantMask);
    }
  });
});

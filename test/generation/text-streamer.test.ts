import { Tokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TextStreamer } from "../../src/generation/text-streamer.ts";
import { vectors } from "./vectors.ts";

describe.each(vectors.tokenizers)("TextStreamer with $name", ({ json, samples }) => {
  const tokenizer = new Tokenizer(json, {});
  const decode = (ids: number[]) => tokenizer.decode(ids, { clean_up_tokenization_spaces: false });

  it.each(samples)("streams $text", ({ text, ids }) => {
    const streamer = new TextStreamer(decode);
    let sofar = "";
    for (const id of ids) {
      const piece = streamer.push(id);
      expect(piece).not.toContain("\ufffd");
      sofar += piece;
      expect(text.startsWith(sofar)).toBe(true);
    }
    expect(sofar + streamer.end()).toBe(text);
  });

  it("gives the same in groups of tokens, for any text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme", maxLength: 12 }),
        fc.integer({ min: 1, max: 4 }),
        (text, group) => {
          const ids = tokenizer.encode(text, { add_special_tokens: false }).ids;
          const streamer = new TextStreamer(decode);
          let streamed = "";
          for (let i = 0; i < ids.length; i += group) streamed += streamer.push(...ids.slice(i, i + group));
          expect(streamed + streamer.end()).toBe(ids.length === 0 ? "" : decode(ids));
        },
      ),
    );
  });
});

describe("TextStreamer", () => {
  const bytes = (ids: number[]) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(ids));

  it("passes a character on with its last byte", () => {
    const streamer = new TextStreamer(bytes);
    expect([...new TextEncoder().encode("a😀é")].map((byte) => streamer.push(byte))).toEqual([
      "a",
      "",
      "",
      "",
      "😀",
      "",
      "é",
    ]);
    expect(streamer.end()).toBe("");
  });

  it("passes incomplete characters on at the end, and starts afresh", () => {
    const streamer = new TextStreamer(bytes);
    expect(streamer.push(0x61, 0xf0, 0x9f)).toBe("");
    expect(streamer.end()).toBe("a\ufffd");
    expect(streamer.push(0x62)).toBe("b");
  });

  it("streams any bytes, valid UTF-8 or not, to what decoding them at once gives", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: "binary" }).map((text) => new TextEncoder().encode(text)),
          fc.uint8Array(),
        ),
        (data) => {
          const streamer = new TextStreamer(bytes);
          const streamed = [...data].map((byte) => streamer.push(byte)).join("") + streamer.end();
          expect(streamed).toBe(bytes([...data]));
        },
      ),
    );
  });

  it("decodes few tokens at a time, however long the text", () => {
    let longest = 0;
    const streamer = new TextStreamer((ids) => {
      longest = Math.max(longest, ids.length);
      return bytes(ids);
    });
    for (let i = 0; i < 1000; i++) streamer.push(97);
    expect(longest).toBe(2);
  });

  it("passes nothing on for tokens without text", () => {
    const streamer = new TextStreamer((ids) =>
      ids
        .filter((id) => id > 2)
        .map((id) => `w${id}`)
        .join(""),
    );
    expect([1, 5, 2, 6].map((id) => streamer.push(id))).toEqual(["", "w5", "", "w6"]);
  });
});

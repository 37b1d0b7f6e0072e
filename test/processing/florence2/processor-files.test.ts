import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { type FileStore, textSource } from "../../../src/data/index.ts";
import { Florence2Processor, ImageProcessor } from "../../../src/processing/index.ts";

const folder = new URL("../../vectors/processing/", import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, folder), "utf8");

/** The files of a recorded checkpoint, some of them changed or (undefined) taken away. */
function store(name: "current" | "original", changes: Record<string, unknown> = {}): FileStore {
  const files: Record<string, string | undefined> = {
    "tokenizer.json": read(`${name}/tokenizer.json`),
    "tokenizer_config.json": read(`${name}/tokenizer_config.json`),
    ...(name === "current"
      ? { "processor_config.json": read("current/processor_config.json") }
      : { "preprocessor_config.json": read("original/preprocessor_config.json") }),
  };
  for (const [file, content] of Object.entries(changes))
    files[file] = content === undefined || typeof content === "string" ? content : JSON.stringify(content);
  return {
    name: "model",
    open: async (file) => (files[file] === undefined ? undefined : textSource(file, files[file])),
  };
}

const json = (path: string): Record<string, unknown> => JSON.parse(read(path));

describe("a checkpoint's files", () => {
  it("may hold the image processor in either of two places; processor_config.json counts first", async () => {
    const nested = json("current/processor_config.json");
    const apart = json("original/preprocessor_config.json");
    const { image_processor: _, ...rest } = nested;
    const older = await Florence2Processor.fromPretrained(
      store("current", {
        "processor_config.json": rest,
        "preprocessor_config.json": { ...apart, image_seq_length: 9 },
      }),
    );
    expect(older.numImageTokens).toBe(9);
    const both = await Florence2Processor.fromPretrained(
      store("current", { "preprocessor_config.json": { ...apart, image_seq_length: 9 } }),
    );
    expect(both.numImageTokens).toBe(6);
    expect(both.imageProcessor.options).toEqual(older.imageProcessor.options);
    expect((await ImageProcessor.fromPretrained(store("current"))).options).toEqual(
      both.imageProcessor.options,
    );
  });

  it("with remote code get the tokens that their code adds, with the same ids", async () => {
    const [current, original] = await Promise.all([
      Florence2Processor.fromPretrained(fileURLToPath(new URL("current", folder))),
      Florence2Processor.fromPretrained(fileURLToPath(new URL("original", folder))),
    ]);
    expect(original.imageTokenId).toBe(current.imageTokenId);
    expect(original.tokenizer.vocabSize).toBe(current.tokenizer.vocabSize);
    for (let id = 0; id < current.tokenizer.vocabSize; id++)
      expect(original.tokenizer.idToToken(id)).toBe(current.tokenizer.idToToken(id));
  });

  it("as published, with BART's tokenizer and no names of tokens, read prompts as their own code does", async () => {
    const remote = json("older-prompts.json") as {
      vocabSize: number;
      tokens: Record<string, number>;
      special: Record<"bos" | "eos" | "pad", number>;
      prompts: { text: string; prompt: string; inputIds: number[] }[];
    };
    const published = { "tokenizer_config.json": { model_max_length: 64 } };
    const processor = await Florence2Processor.fromPretrained(store("original", published));
    const { tokenizer, imageTokenId, numImageTokens } = processor;
    for (const [token, id] of Object.entries(remote.tokens)) expect(tokenizer.tokenToId(token)).toBe(id);
    expect(imageTokenId).toBe(remote.vocabSize);
    expect(tokenizer.vocabSize).toBe(remote.vocabSize + 1);
    const { bos, eos, pad } = remote.special;
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.padTokenId]).toEqual([bos, eos, pad]);
    for (const { text, prompt, inputIds } of remote.prompts) {
      expect(tokenizer.encode(prompt, { addSpecialTokens: true }), text).toEqual(inputIds);
      // the features of the picture come first there, without tokens
      expect(processor.encodePrompt(text), text).toEqual([
        ...Array<number>(numImageTokens).fill(imageTokenId),
        ...inputIds,
      ]);
    }
  });

  it("with remote code answer every task, phrases that ground nothing left out", async () => {
    const { postProcessor } = await Florence2Processor.fromPretrained(store("original"));
    const answer = postProcessor.parse(
      "it<loc_1><loc_2><loc_3><loc_4>a dog<loc_5><loc_6><loc_7><loc_8>",
      "<CAPTION_TO_PHRASE_GROUNDING>",
      [1000, 1000],
    );
    expect(answer).toEqual({ bboxes: [[5, 6, 7, 8]], labels: ["a dog"] });
  });

  it("name the image token as earlier versions of transformers do", async () => {
    const config = json("current/tokenizer_config.json");
    delete config["image_token"];
    delete config["model_specific_special_tokens"];
    const extra = { ...config, extra_special_tokens: { image_token: "<image>" } };
    const processor = await Florence2Processor.fromPretrained(
      store("current", { "tokenizer_config.json": extra }),
    );
    expect(processor.imageToken).toBe("<image>");
  });
});

describe("a checkpoint's files that cannot be used", () => {
  const config = json("current/tokenizer_config.json");
  const nested = json("current/processor_config.json") as { image_processor: Record<string, unknown> };
  const { image_seq_length: _, ...uncounted } = nested.image_processor;
  it.each([
    ["no-processor", { "processor_config.json": undefined }, "model: preprocessor_config.json is missing"],
    ["bad-json", { "processor_config.json": "{" }, "model/processor_config.json:1:2: not valid JSON"],
    [
      "bad-processor",
      { "processor_config.json": "[]" },
      "model/processor_config.json: expected a JSON object.",
    ],
    [
      "bad-processor",
      { "processor_config.json": { image_processor: uncounted } },
      'model/processor_config.json: "image_seq_length" must be the number of tokens that stand for a picture',
    ],
    [
      "bad-processor",
      { "processor_config.json": { image_processor: { ...nested.image_processor, resample: "cubic" } } },
      'model/processor_config.json: "resample" must be the number of a Pillow filter, 0 to 5, got "cubic".',
    ],
    [
      "bad-processor",
      { "processor_config.json": { ...nested, post_processor_config: 3 } },
      'model/processor_config.json: "post_processor_config" must be an object.',
    ],
    [
      "bad-processor",
      { "tokenizer_config.json": { ...config, eos_token: undefined } },
      'model/tokenizer_config.json: "eos_token" is missing',
    ],
    ["no-tokenizer", { "tokenizer.json": undefined }, "model: tokenizer.json is missing."],
  ])("%s %j", async (code, changes, message) => {
    const error = await Florence2Processor.fromPretrained(store("current", changes)).catch(
      (error: unknown) => error,
    );
    expect(error).toMatchObject({ name: "DataError", code });
    expect((error as Error).message).toContain(message);
  });

  it("an address", async () => {
    await expect(Florence2Processor.fromPretrained("https://example.com/model")).rejects.toMatchObject({
      code: "not-a-directory",
    });
  });
});

describe("pictures in a batch", () => {
  it("are named in errors, by their path or their number", async () => {
    const processor = await Florence2Processor.fromPretrained(store("current"));
    const good = { width: 1, height: 1, data: new Uint8Array(3) };
    await expect(
      processor.process({ text: ["a", "a"], images: [good, new Uint8Array([1, 2, 3, 4, 5])] }),
    ).rejects.toThrow("picture 2: the file is not a picture (it begins with 01 02 03 04).");
    await expect(processor.process({ images: "none/there.png" })).rejects.toThrow(
      "none/there.png: there is no such file.",
    );
  });

  it("are read from their files", async () => {
    const processor = await Florence2Processor.fromPretrained(store("current"));
    const image = fileURLToPath(new URL("images/rgb.png", folder));
    const { pixelValues } = await processor.process({ text: "<CAPTION>", images: image });
    expect(pixelValues!.shape).toEqual([1, 3, 16, 24]);
  });
});

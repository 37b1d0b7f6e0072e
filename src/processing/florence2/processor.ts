import type { FileStore, Tokenizer } from "../../data/index.ts";
import { dataError } from "../../data/problem.ts";
import { DataError } from "../../errors.ts";
import type { Tensor } from "../../tensor/index.ts";
import { parseImageProcessor } from "../images/image-options.ts";
import { ImageProcessor, readImageProcessorJson } from "../images/image-processor.ts";
import { type ImageInput, readImage } from "../images/read-image.ts";
import { openFiles, readJsonObject } from "../json-file.ts";
import type { ImageSize } from "./locations.ts";
import { type PaddingOptions, padIds } from "./padding.ts";
import { type Florence2Answer, Florence2PostProcessor, parsePostProcessor } from "./post-processor.ts";
import { expandPrompt } from "./tasks.ts";
import { type Florence2Tokens, readFlorence2Tokens } from "./tokens.ts";

export type Florence2Input = {
  /** A task's token, a task's token and its text, or any other text; one for each picture. Default: no text. */
  text?: string | readonly string[];
  images?: ImageInput | readonly ImageInput[];
};

/** What the model takes; [B, S], [B, S] and [B, 3, H, W]. */
export type Florence2Inputs = {
  inputIds: Tensor<"int64">;
  attentionMask: Tensor<"int64">;
  pixelValues?: Tensor<"float32">;
};

export type Florence2ProcessorParts = Florence2Tokens & {
  imageProcessor: ImageProcessor;
  /** Placeholder tokens of a picture, as many as the model makes features of it. */
  numImageTokens: number;
  postProcessor?: Florence2PostProcessor;
};

/**
 * Pictures and prompts to what Florence-2 takes, and what it generates to answers, with the results of transformers
 * 5.18's Florence2Processor and Pillow-based image processor.
 */
export class Florence2Processor {
  readonly imageProcessor: ImageProcessor;
  readonly tokenizer: Tokenizer;
  readonly postProcessor: Florence2PostProcessor;
  readonly imageToken: string;
  readonly imageTokenId: number;
  readonly numImageTokens: number;

  /** Prefer `Florence2Processor.fromPretrained`. */
  constructor(parts: Florence2ProcessorParts) {
    this.imageProcessor = parts.imageProcessor;
    this.tokenizer = parts.tokenizer;
    this.postProcessor = parts.postProcessor ?? new Florence2PostProcessor();
    this.imageToken = parts.imageToken;
    this.imageTokenId = parts.imageTokenId;
    this.numImageTokens = parts.numImageTokens;
  }

  /**
   * Read processor_config.json, preprocessor_config.json and the tokenizer's files from a local directory, or from any
   * store of files. Checkpoints with remote code work too (see `readFlorence2Tokens`).
   * @throws DataError that names the file and what to do: "no-processor", "bad-processor", "bad-json", and what
   * AutoTokenizer throws
   */
  static async fromPretrained(location: string | FileStore): Promise<Florence2Processor> {
    const store = await openFiles(location);
    const file = "processor_config.json";
    const [tokens, { json, place }, config] = await Promise.all([
      readFlorence2Tokens(store),
      readImageProcessorJson(store),
      readJsonObject(store, file),
    ]);
    const numImageTokens = json["image_seq_length"];
    if (!Number.isInteger(numImageTokens) || (numImageTokens as number) < 1)
      throw dataError(
        "bad-processor",
        place,
        '"image_seq_length" must be the number of tokens that stand for a picture (577 for Florence-2 at 768 × 768), ' +
          `got ${JSON.stringify(numImageTokens)}. Add it, or copy the file again from the model's page.`,
      );
    const postProcessor = parsePostProcessor(config?.["post_processor_config"], {
      file: `${store.name}/${file}`,
    });
    return new Florence2Processor({
      ...tokens,
      imageProcessor: new ImageProcessor(parseImageProcessor(json, place)),
      numImageTokens: numImageTokens as number,
      postProcessor: new Florence2PostProcessor(postProcessor),
    });
  }

  /**
   * Prompts with their pictures as the model's inputs.
   * @throws DataError "no-input", "image-count" if pictures and texts differ in number, and what `encodePrompt`,
   * `readImage`, `ImageProcessor.preprocessBatch` and `padIds` throw
   */
  async process({ text, images }: Florence2Input, options: PaddingOptions = {}): Promise<Florence2Inputs> {
    const pictures = images === undefined ? undefined : isList(images) ? images : [images];
    const given = text === undefined ? undefined : typeof text === "string" ? [text] : text;
    const texts = given ?? pictures?.map(() => "") ?? [];
    if (texts.length === 0)
      throw new DataError("There is neither text nor a picture. Give at least one of them.", {
        code: "no-input",
      });
    if (pictures !== undefined && pictures.length !== texts.length)
      throw new DataError(
        `There are ${pictures.length} pictures for ${texts.length} texts. Give one picture for each text.`,
        { code: "image-count", details: { images: pictures.length, texts: texts.length } },
      );
    const { maxLength = this.tokenizer.maxLength, ...padding } = options;
    const rows = texts.map((sample) =>
      this.encodePrompt(sample, {
        image: pictures !== undefined,
        ...(options.truncation === true && maxLength !== undefined && { maxLength }),
      }),
    );
    const inputs = padIds(
      rows,
      { ...padding, ...(maxLength !== undefined && { maxLength }) },
      this.tokenizer.padTokenId,
    );
    if (pictures === undefined) return inputs;
    const decoded = await Promise.all(
      pictures.map((image, i) => readImage(image, { name: nameOf(image, i) })),
    );
    return { ...inputs, pixelValues: this.imageProcessor.preprocessBatch(decoded) };
  }

  /**
   * Token ids of a prompt: its task expanded, and with a picture `<image>…<s>prompt</s>` around it, the placeholder as
   * often as `numImageTokens`. Without a picture there are no special tokens.
   * @param maxLength cut after so many tokens
   * @throws DataError "bad-prompt" if a task that takes no text is given some or the prompt holds the placeholder;
   * "truncated-image" if placeholders would be cut off
   */
  encodePrompt(
    text: string,
    { image = true, maxLength }: { image?: boolean; maxLength?: number } = {},
  ): number[] {
    const prompt = expandPrompt(text);
    if (image && prompt.includes(this.imageToken))
      throw new DataError(
        `The prompt ${JSON.stringify(text)} holds ${this.imageToken}, which stands for a picture and is put in by itself. Leave it out.`,
        { code: "bad-prompt", details: { prompt: text } },
      );
    let ids = this.tokenizer.encode(image ? this.#startToken + prompt + this.#endToken : prompt, {
      addSpecialTokens: false,
    });
    if (image) ids = [...new Array<number>(this.numImageTokens).fill(this.imageTokenId), ...ids];
    if (maxLength === undefined || ids.length <= maxLength) return ids;
    if (image && maxLength < this.numImageTokens)
      throw new DataError(
        `${maxLength} tokens do not hold a picture, which takes ${this.numImageTokens}. Raise maxLength, or do not truncate.`,
        { code: "truncated-image", details: { maxLength, numImageTokens: this.numImageTokens } },
      );
    return ids.slice(0, maxLength);
  }

  /**
   * The answer in a text that the model generated, or in its token ids, by the name of its task.
   * @param imageSize width and height of the picture that was asked about, in pixels; needed for answers with locations
   * @throws DataError "unsupported-task", "bad-image-size", "bad-location"
   */
  postProcessGeneration<Task extends string>(
    generated: string | ArrayLike<number | bigint>,
    { task, imageSize }: { task: Task; imageSize?: ImageSize },
  ): Record<Task, Florence2Answer<Task>> {
    const text = typeof generated === "string" ? generated : this.#decode(generated);
    return { [task]: this.postProcessor.parse(text, task, imageSize) } as Record<Task, Florence2Answer<Task>>;
  }

  /** Token by token, as the reference: a character of several tokens comes out as U+FFFD. */
  #decode(ids: ArrayLike<number | bigint>): string {
    let text = "";
    for (let i = 0; i < ids.length; i++)
      if (i > 0 || Number(ids[i]) !== this.tokenizer.bosTokenId) text += this.tokenizer.decode([ids[i]!]);
    return text;
  }

  get #startToken(): string {
    return this.tokenizer.idToToken(this.tokenizer.bosTokenId!)!;
  }

  get #endToken(): string {
    return this.tokenizer.idToToken(this.tokenizer.eosTokenId!)!;
  }
}

const isList = (images: ImageInput | readonly ImageInput[]): images is readonly ImageInput[] =>
  Array.isArray(images);

const nameOf = (image: ImageInput, index: number): string =>
  typeof image === "string" && !/^data:/i.test(image) ? image : `picture ${index + 1}`;

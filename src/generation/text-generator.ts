import { UnsupportedModelError } from "../errors.ts";
import { CausalLM, type LanguageModel, Seq2SeqLM } from "../models/index.ts";
import { type Florence2Answer, type Florence2Processor, florence2Tasks } from "../processing/index.ts";
import type { Engine } from "../runtime/index.ts";
import { CausalDecoder } from "./causal-decoder.ts";
import { type GenerationConfig, type GenerationWarning, resolveGenerationConfig } from "./config.ts";
import type { GeneratedToken } from "./continuation.ts";
import type { CachedDecoder } from "./decoding.ts";
import { type GenerateOptions, generateTexts, streamText } from "./generate.ts";
import type { GeneratedText } from "./growth.ts";
import { settingsFile } from "./model-settings.ts";
import type { GenerationOptions } from "./options.ts";
import { decoderOf, type Prompt, type ReadPrompt, readPrompt, type TextCodec } from "./prompts.ts";
import { Seq2SeqDecoder } from "./seq2seq-decoder.ts";

export type TextGeneratorOptions = {
  /** Default: a CPU engine of its own (Node), disposed of with the generator. */
  readonly engine?: Engine;
  /** Needed for text; token ids need none. */
  readonly tokenizer?: TextCodec | undefined;
  /** For a model that reads pictures: needed for texts and pictures, and stands for the tokenizer. */
  readonly processor?: Florence2Processor | undefined;
};

/** A text, and where a processor knows the task, what it says. */
export type Generated = GeneratedText & { readonly parsed?: Florence2Answer };

export type GeneratedAnswer = Generated & {
  /** `numReturnSequences` texts, the best first; the first is this one. */
  readonly sequences: readonly Generated[];
  /** Size of the picture as it was given, in pixels. */
  readonly image?: { readonly width: number; readonly height: number };
};

type Signal = { readonly signal?: AbortSignal | undefined };

/**
 * Writes text with a model, with whatever adapter is in it.
 *
 *     const generator = await TextGenerator.create(model, { tokenizer });
 *     for await (const { text } of generator.stream("In the beginning", { temperature: 0.7 })) process.stdout.write(text);
 *     await generator.dispose();
 *
 * An encoder–decoder writes about its prompt instead of going on from it; one that reads pictures takes
 * `{ prompt: "<CAPTION>", image: "photo.jpg" }`.
 */
export class TextGenerator {
  private readonly decoder: CachedDecoder;
  private readonly readers: Pick<TextGeneratorOptions, "tokenizer" | "processor">;
  private readonly ownEngine: Engine | undefined;

  private constructor(
    decoder: CachedDecoder,
    readers: Pick<TextGeneratorOptions, "tokenizer" | "processor">,
    ownEngine: Engine | undefined,
  ) {
    this.decoder = decoder;
    this.readers = readers;
    this.ownEngine = ownEngine;
  }

  /** Loads the model for generation. The adapter's weights are read when a text begins. */
  static async create(
    model: LanguageModel,
    { engine, tokenizer, processor }: TextGeneratorOptions = {},
  ): Promise<TextGenerator> {
    const own = engine ? undefined : await (await import("../runtime/node.ts")).createEngine();
    try {
      return new TextGenerator(await loadDecoder(model, (engine ?? own)!), { tokenizer, processor }, own);
    } catch (error) {
      await own?.dispose();
      throw error;
    }
  }

  /** The settings that options, the model's generation_config.json and defaults make together. */
  settings(options: GenerationOptions = {}): { config: GenerationConfig; warnings: GenerationWarning[] } {
    return generationSettings(this.decoder.model, options);
  }

  /**
   * Writes a text, token by token; with several beams all of it at the end, for the best text is not known before.
   * @throws GraftError if an option is wrong, the prompt is empty, too long or lacks what it needs (a tokenizer, a
   * processor, a picture), or there is no tokenizer for a stop string; the signal's reason if aborted.
   */
  async *stream(
    prompt: Prompt | ReadPrompt,
    options: GenerationOptions = {},
    { signal }: Signal = {},
  ): AsyncGenerator<GeneratedToken> {
    const generation = this.generation(options, signal);
    yield* streamText(this.decoder, await this.readPrompt(prompt), generation);
  }

  /** Writes a text to its end; with `numReturnSequences` several. @throws as `stream` */
  async generate(
    prompt: Prompt | ReadPrompt,
    options: GenerationOptions = {},
    { signal }: Signal = {},
  ): Promise<GeneratedAnswer> {
    const generation = this.generation(options, signal);
    const read = await this.readPrompt(prompt);
    const [texts] = await generateTexts(this.decoder, [read], generation);
    const sequences = texts!.map((text): Generated => {
      const parsed = this.parse(text.tokens, read);
      return { ...text, ...(parsed !== undefined && { parsed }) };
    });
    return { ...sequences[0]!, sequences, ...(read.image && { image: read.image }) };
  }

  /** Writes several prompts' texts at once; returns the tokens of each, `numReturnSequences` in a row for each prompt. */
  async generateBatch(
    prompts: readonly (Prompt | ReadPrompt)[],
    options: GenerationOptions = {},
    { signal }: Signal = {},
  ): Promise<number[][]> {
    const generation = this.generation(options, signal);
    const sources = await Promise.all(prompts.map((prompt) => this.readPrompt(prompt)));
    const texts = await generateTexts(this.decoder, sources, generation);
    return texts.flat().map(({ tokens }) => [...tokens]);
  }

  /**
   * What a text says, by the task of its prompt: text, boxes, polygons. Undefined without a task, or where locations have no
   * picture to be scaled to.
   * @throws DataError for locations that cannot be, or a task that the processor's configuration leaves out
   */
  parse(tokens: readonly number[], { task, image }: ReadPrompt): Florence2Answer | undefined {
    const { processor } = this.readers;
    if (!processor || task === undefined || (!image && !answersInText(task))) return undefined;
    const text = processor.tokenizer.decode([...tokens]);
    return processor.postProcessGeneration(text, {
      task,
      ...(image && { imageSize: [image.width, image.height] }),
    })[task];
  }

  async dispose(): Promise<void> {
    await this.decoder.dispose();
    await this.ownEngine?.dispose();
  }

  private generation(options: GenerationOptions, signal: AbortSignal | undefined): GenerateOptions {
    const { tokenizer, processor } = this.readers;
    return { config: this.settings(options).config, decode: decoderOf({ tokenizer, processor }), signal };
  }

  private async readPrompt(prompt: Prompt | ReadPrompt): Promise<ReadPrompt> {
    if (typeof prompt === "object" && "tokens" in prompt) return prompt;
    const { tokenizer, processor } = this.readers;
    return readPrompt(prompt, { model: this.decoder.model, tokenizer, processor });
  }
}

/** Whether a task is answered by text alone. */
const answersInText = (task: string): boolean =>
  (florence2Tasks as Readonly<Record<string, { answer: string }>>)[task]?.answer === "pure_text";

/** Loads a model of either kind for generation. */
export async function loadDecoder(model: LanguageModel, engine: Engine): Promise<CachedDecoder> {
  if (model instanceof CausalLM) return CausalDecoder.create(model, engine);
  if (model instanceof Seq2SeqLM) return Seq2SeqDecoder.create(model, engine);
  throw new UnsupportedModelError(`There is no generation for a model of type ${model.modelType}.`, {
    code: "no-generation",
    details: { modelType: model.modelType },
  });
}

/** The settings that options, a model's own files and defaults make together. */
export function generationSettings(
  { origin, eosTokenIds }: LanguageModel,
  options: GenerationOptions = {},
): { config: GenerationConfig; warnings: GenerationWarning[] } {
  return resolveGenerationConfig(options, { ...settingsFile(origin), eosTokenIds });
}

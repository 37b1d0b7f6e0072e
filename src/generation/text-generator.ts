import { GraftError } from "../errors.ts";
import type { CausalLM } from "../models/index.ts";
import type { Engine } from "../runtime/index.ts";
import { CachedDecoder } from "./cached-decoder.ts";
import {
  type GenerationConfig,
  type GenerationOptions,
  type GenerationWarning,
  resolveGenerationConfig,
} from "./config.ts";
import { type GeneratedToken, generate, generateBatch } from "./generate.ts";
import type { StopReason } from "./stopping.ts";

/** What generation needs of a tokenizer. */
export type TextCodec = {
  encode(text: string): number[];
  decode(ids: number[], options?: { skipSpecialTokens?: boolean }): string;
};

export type TextGeneratorOptions = {
  /** Default: a CPU engine of its own (Node), disposed of with the generator. */
  readonly engine?: Engine;
  /** Needed for text; token ids need none. */
  readonly tokenizer?: TextCodec;
};

/**
 * Writes text with a model, with whatever adapter is in it.
 *
 *     const generator = await TextGenerator.create(model, { tokenizer });
 *     for await (const { text } of generator.stream("In the beginning", { temperature: 0.7 })) process.stdout.write(text);
 *     await generator.dispose();
 */
export class TextGenerator {
  private readonly decoder: CachedDecoder;
  private readonly tokenizer: TextCodec | undefined;
  private readonly ownEngine: Engine | undefined;

  private constructor(
    decoder: CachedDecoder,
    tokenizer: TextCodec | undefined,
    ownEngine: Engine | undefined,
  ) {
    this.decoder = decoder;
    this.tokenizer = tokenizer;
    this.ownEngine = ownEngine;
  }

  /** Loads the model for generation. The adapter's weights are read when a text begins. */
  static async create(
    model: CausalLM,
    { engine, tokenizer }: TextGeneratorOptions = {},
  ): Promise<TextGenerator> {
    const own = engine ? undefined : await (await import("../runtime/node.ts")).createEngine();
    try {
      return new TextGenerator(await CachedDecoder.create(model, (engine ?? own)!), tokenizer, own);
    } catch (error) {
      await own?.dispose();
      throw error;
    }
  }

  /** The settings that options, the model's generation_config.json and defaults make together. */
  settings(options: GenerationOptions = {}): { config: GenerationConfig; warnings: GenerationWarning[] } {
    const { origin, eosTokenIds } = this.decoder.model;
    return resolveGenerationConfig(options, {
      file: origin.generationConfig,
      name: `${origin.name}/generation_config.json`,
      eosTokenIds,
    });
  }

  /**
   * Continues a prompt, token by token.
   * @throws GraftError if an option is wrong, the prompt is empty, or there is no tokenizer for a text or a stop string; the
   * signal's reason if aborted.
   */
  async *stream(
    prompt: string | readonly number[],
    options: GenerationOptions = {},
    { signal }: { signal?: AbortSignal } = {},
  ): AsyncGenerator<GeneratedToken> {
    const { config } = this.settings(options);
    yield* generate(this.decoder, this.tokens(prompt), { config, decode: this.decode(), signal });
  }

  /** Continues a prompt to its end. */
  async generate(
    prompt: string | readonly number[],
    options: GenerationOptions = {},
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<{ text: string; tokens: number[]; reason: StopReason }> {
    let text = "";
    const tokens: number[] = [];
    let last: StopReason | undefined;
    for await (const { token, text: piece, reason } of this.stream(
      prompt,
      options,
      signal ? { signal } : {},
    )) {
      text += piece;
      tokens.push(token);
      last = reason;
    }
    return { text, tokens, reason: last! };
  }

  /** Continues several prompts at once; returns the new tokens of each. */
  generateBatch(
    prompts: readonly (string | readonly number[])[],
    options: GenerationOptions = {},
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<number[][]> {
    const { config } = this.settings(options);
    return generateBatch(
      this.decoder,
      prompts.map((prompt) => this.tokens(prompt)),
      { config, decode: this.decode(), signal },
    );
  }

  async dispose(): Promise<void> {
    await this.decoder.dispose();
    await this.ownEngine?.dispose();
  }

  private decode(): ((ids: number[]) => string) | undefined {
    const { tokenizer } = this;
    return tokenizer && ((ids) => tokenizer.decode(ids, { skipSpecialTokens: true }));
  }

  private tokens(prompt: string | readonly number[]): readonly number[] {
    if (typeof prompt !== "string") return prompt;
    if (!this.tokenizer)
      throw new GraftError(
        "A text prompt needs a tokenizer: pass one to TextGenerator.create, or give token ids.",
        { code: "no-tokenizer" },
      );
    return this.tokenizer.encode(prompt);
  }
}

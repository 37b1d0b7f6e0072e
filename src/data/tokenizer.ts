import { DataError } from "../errors.ts";
import { assistantSpans } from "./assistant-spans.ts";
import { type ChatMessage, ChatTemplate, type RenderedChat, type Span } from "./chat-template.ts";
import { createPipeline, type Pipeline, spellingOf, vocabularyEnd } from "./pipeline.ts";
import { quoteList } from "./problem.ts";
import { type TokenSpelling, tokenOffsets } from "./token-offsets.ts";
import { type JsonObject, readTokenizerFiles, type TokenizerFiles } from "./tokenizer-files.ts";
import type { FileStore } from "./types.ts";

export type ChatOptions = {
  /** End with the opening of an assistant message, for generation. Default false. */
  addGenerationPrompt?: boolean;
  /** Tools as JSON schemas, and documents; what they mean is up to the template. */
  tools?: readonly unknown[];
  documents?: readonly unknown[];
  /** Name of one of the tokenizer's templates, or a template. Default: "tool_use" with tools if there is one, else "default". */
  chatTemplate?: string;
  /** Further variables for the template. */
  variables?: Record<string, unknown>;
};

/** A tokenized chat; `assistantMask` is 1 for the tokens that the assistant wrote. */
export type EncodedChat = { inputIds: number[]; assistantMask: number[]; text: string };

/**
 * A Hugging Face tokenizer: text to token ids and back, and chat templates, with the results of transformers 5.18
 * (test/data/tokenizer-vectors.test.ts). The work is done by @huggingface/tokenizers and @huggingface/jinja.
 */
export class Tokenizer {
  readonly name: string;
  /** One more than the largest id, added tokens included. */
  readonly vocabSize: number;
  readonly bosTokenId?: number;
  readonly eosTokenId?: number;
  readonly unkTokenId?: number;
  /** Id to pad with: the pad token's, else the end token's (see `padTokenIsEos`). Absent if there is neither. */
  readonly padTokenId?: number;
  /** True if the files name no pad token, so that the end token stands in for it. */
  readonly padTokenIsEos: boolean;
  /** `model_max_length`, if the files give a sensible one. */
  readonly maxLength?: number;
  /** Ids of all special tokens. */
  readonly specialTokenIds: ReadonlySet<number>;
  /** Names of the chat templates. */
  readonly chatTemplateNames: readonly string[];

  readonly #pipeline: Pipeline;
  readonly #files: TokenizerFiles;
  readonly #addedContents: ReadonlySet<string>;
  readonly #spelling: TokenSpelling;
  readonly #cleanUp: boolean;
  readonly #templates = new Map<string, ChatTemplate>();
  #addsEos: boolean | undefined;
  #prependsSpace: boolean | undefined;

  /** Prefer `AutoTokenizer.fromPretrained`. @throws DataError "unsupported-tokenizer" */
  constructor(files: TokenizerFiles) {
    this.#files = files;
    this.name = files.name;
    const { tokenizer, config, specialTokens } = files;
    this.#pipeline = createPipeline(files);
    const idOf = (name: string): number | undefined => {
      const content = specialTokens[name];
      return content === undefined ? undefined : this.#pipeline.token_to_id(content);
    };
    const [bos, eos, unk, pad] = [idOf("bos_token"), idOf("eos_token"), idOf("unk_token"), idOf("pad_token")];
    if (bos !== undefined) this.bosTokenId = bos;
    if (eos !== undefined) this.eosTokenId = eos;
    if (unk !== undefined) this.unkTokenId = unk;
    const padOrEos = pad ?? eos;
    if (padOrEos !== undefined) this.padTokenId = padOrEos;
    this.padTokenIsEos = pad === undefined && eos !== undefined;

    this.vocabSize = vocabularyEnd(files);
    this.specialTokenIds = new Set(
      files.addedTokens.filter((token) => token.special).map((token) => token.id),
    );
    this.#addedContents = new Set(files.addedTokens.map((token) => token.content));
    const maxLength = config["model_max_length"];
    // transformers writes 1e30 where no limit is known.
    if (typeof maxLength === "number" && maxLength > 0 && maxLength < 1e9) this.maxLength = maxLength;
    this.chatTemplateNames = Object.keys(files.chatTemplates);
    this.#spelling = spellingOf(tokenizer);
    const type = (tokenizer["model"] as JsonObject)["type"];
    this.#cleanUp = type !== "BPE" && config["clean_up_tokenization_spaces"] === true;
  }

  /** Text to token ids; special tokens (usually a start token) are added unless `addSpecialTokens` is false. */
  encode(text: string, { addSpecialTokens = true }: { addSpecialTokens?: boolean } = {}): number[] {
    return this.#pipeline.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  }

  /**
   * Token ids of text that continues other text: no special tokens, and no space put in front of it by
   * sentencepiece-like tokenizers.
   */
  encodeContinuation(text: string): number[] {
    this.#prependsSpace ??= /^[▁Ġ ]/.test(
      this.#pipeline.encode("a", { add_special_tokens: false }).tokens[0] ?? "",
    );
    const bare = this.encode(text, { addSpecialTokens: false });
    if (!this.#prependsSpace || text === "") return bare;
    const anchor = this.encode("\n", { addSpecialTokens: false });
    const anchored = this.encode(`\n${text}`, { addSpecialTokens: false });
    return anchor.every((id, i) => anchored[i] === id) ? anchored.slice(anchor.length) : bare;
  }

  /** Token ids to text. Ids outside the vocabulary are left out, as in Python. */
  decode(
    ids: ArrayLike<number | bigint>,
    { skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {},
  ): string {
    const kept: number[] = [];
    for (let i = 0; i < ids.length; i++) {
      const id = Number(ids[i]);
      if (skipSpecialTokens && this.specialTokenIds.has(id)) continue;
      if (this.#pipeline.id_to_token(id) !== undefined) kept.push(id);
    }
    if (kept.length === 0) return "";
    return this.#pipeline.decode(kept, { clean_up_tokenization_spaces: this.#cleanUp });
  }

  /** The token's id; undefined if it is not in the vocabulary. */
  tokenToId(token: string): number | undefined {
    return this.#pipeline.token_to_id(token);
  }

  /** The token's spelling in the vocabulary. */
  idToToken(id: number): string | undefined {
    return this.#pipeline.id_to_token(id);
  }

  /** True if `encode` ends with the end token. */
  get addsEos(): boolean {
    this.#addsEos ??= this.eosTokenId !== undefined && this.encode("a").at(-1) === this.eosTokenId;
    return this.#addsEos;
  }

  /**
   * Render messages as text by the chat template.
   * @throws DataError "no-chat-template" if the tokenizer has none, "chat-template" if the template refuses the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    return this.#render(messages, options).text;
  }

  /**
   * Render and tokenize messages, and mark the tokens that the assistant wrote: what stands in the template's
   * `{% generation %}` blocks, or, if it has none, what follows each generation prompt (see assistant-spans.ts).
   * A token that lies partly in such a range counts.
   * @throws DataError as applyChatTemplate; "chat-template-prefix" if the assistant's part cannot be told apart.
   */
  encodeChat(messages: readonly ChatMessage[], options: ChatOptions = {}): EncodedChat {
    const rendered = this.#render(messages, options);
    const spans = this.#template(options).hasGeneration
      ? rendered.generated
      : assistantSpans(messages, rendered.text, {
          name: this.name,
          specialTokens: [...this.specialTokenIds].map((id) => this.idToToken(id)!),
          render: (part, addGenerationPrompt) => this.#render(part, { ...options, addGenerationPrompt }).text,
        });
    const { ids, tokens } = this.#pipeline.encode(rendered.text, { add_special_tokens: false });
    return {
      inputIds: ids,
      assistantMask: this.#maskSpans(rendered.text, ids, tokens, spans),
      text: rendered.text,
    };
  }

  #render(messages: readonly ChatMessage[], options: ChatOptions): RenderedChat {
    const { addGenerationPrompt = false, tools, documents, variables } = options;
    if (messages.length === 0)
      throw new DataError("A chat needs at least one message; got an empty list.", { code: "no-messages" });
    return this.#template(options).render({
      ...this.#files.specialTokens,
      messages,
      tools: tools ?? null,
      documents: documents ?? null,
      add_generation_prompt: addGenerationPrompt,
      ...variables,
    });
  }

  #template({ chatTemplate, tools }: ChatOptions): ChatTemplate {
    const { chatTemplates } = this.#files;
    const name =
      chatTemplate ?? (tools !== undefined && "tool_use" in chatTemplates ? "tool_use" : "default");
    let template = this.#templates.get(name);
    if (template === undefined) {
      const source = Object.hasOwn(chatTemplates, name) ? chatTemplates[name] : chatTemplate;
      if (source === undefined)
        throw new DataError(
          this.chatTemplateNames.length === 0
            ? `The tokenizer of ${this.name} has no chat template, so {"messages"} cannot be rendered. ` +
                'Put one into chat_template.jinja beside tokenizer.json, or give rows of {"prompt", "completion"}.'
            : `The tokenizer of ${this.name} has no chat template "${name}", only ${quoteList(this.chatTemplateNames)}. Name one of these.`,
          { code: "no-chat-template", details: { store: this.name, names: this.chatTemplateNames } },
        );
      template = new ChatTemplate(source, this.name);
      this.#templates.set(name, template);
    }
    return template;
  }

  /** 1 for each token that overlaps one of the spans of `text`. */
  #maskSpans(text: string, ids: number[], tokens: string[], spans: readonly Span[]): number[] {
    const mask = new Array<number>(ids.length).fill(0);
    // A normalizer may have changed the text; Unicode composition is the one that language models use.
    for (const normalize of [(part: string) => part, (part: string) => part.normalize("NFC")]) {
      const length = (part: string): number => new TextEncoder().encode(normalize(part)).length;
      const bytes = new TextEncoder().encode(normalize(text));
      const ranges = tokenOffsets(bytes, tokens, {
        spelling: this.#spelling,
        addedTokens: this.#addedContents,
      });
      if (ranges === undefined) continue;
      for (const [start, end] of spans) {
        const [from, to] = [length(text.slice(0, start)), length(text.slice(0, end))];
        ranges.forEach((range, i) => {
          if (range.start < to && range.end > from) mask[i] = 1;
        });
      }
      return mask;
    }
    // Another normalizer: find the boundaries by tokenizing what stands before them.
    const boundary = (at: number): number => {
      const before = this.encode(text.slice(0, at), { addSpecialTokens: false });
      let same = 0;
      while (same < before.length && before[same] === ids[same]) same++;
      return same;
    };
    for (const [start, end] of spans)
      mask.fill(1, boundary(start), end === text.length ? ids.length : boundary(end));
    return mask;
  }
}

/** Loads the tokenizer of a checkpoint; named as in transformers. */
export const AutoTokenizer = {
  /**
   * Read tokenizer.json and the files beside it from a local directory, or from any store of files.
   * @throws DataError that names the file and what to do: "no-tokenizer", "sentencepiece-only", "bad-json",
   * "bad-tokenizer", "unsupported-tokenizer".
   */
  async fromPretrained(location: string | FileStore): Promise<Tokenizer> {
    if (typeof location === "string" && /^https?:/i.test(location))
      throw new DataError(
        `${location}: a tokenizer is read from a local directory or a store of files. Pass urlStore(${JSON.stringify(location)}).`,
        { code: "not-a-directory", details: { location } },
      );
    const store =
      typeof location === "string" ? (await import("./node.ts")).directoryFiles(location) : location;
    return new Tokenizer(await readTokenizerFiles(store));
  },
};

import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { dataError } from "./problem.ts";
import type { TokenSpelling } from "./token-offsets.ts";
import { isObject, type JsonObject, type TokenizerFiles } from "./tokenizer-files.ts";

/** A step of the library's decoder. */
type DecoderStep = {
  config: { type: string };
  decoders?: DecoderStep[];
  decode_chain(tokens: string[]): string[];
};

/** The part of the library's tokenizer that is used here. Its own types do not resolve under Node's module rules. */
export type Pipeline = {
  decoder: DecoderStep | null;
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[]; tokens: string[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
};

/**
 * The library's tokenizer for these files, with its known deviations from Python corrected or refused.
 * @throws DataError "unsupported-tokenizer"
 */
export function createPipeline(files: TokenizerFiles): Pipeline {
  refuseUnsupported(files);
  let pipeline: Pipeline;
  try {
    pipeline = new LibraryTokenizer(files.tokenizer, files.config) as Pipeline;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw unsupported(files.name, `cannot be used: ${reason}`, cause);
  }
  correctByteFallback(pipeline.decoder);
  return pipeline;
}

const unsupported = (name: string, what: string, cause?: unknown) =>
  dataError(
    "unsupported-tokenizer",
    { file: `${name}/tokenizer.json` },
    `${what}. Tokenize in Python and give rows of {"input_ids"} instead.`,
    {},
    cause,
  );

/** What the library accepts but does differently from Python, with wrong tokens as the result. */
function refuseUnsupported({ name, tokenizer, addedTokens }: TokenizerFiles): void {
  const singleWord = addedTokens.find((token) => token["single_word"] === true);
  if (singleWord !== undefined)
    throw unsupported(
      name,
      `has the added token ${JSON.stringify(singleWord.content)} with single_word, which Graft does not implement`,
    );
  const spacesReplaced = [...walk(tokenizer["normalizer"])].some(
    (step) => step["type"] === "Replace" && isObject(step["pattern"]) && step["pattern"]["String"] === " ",
  );
  for (const step of walk(tokenizer["pre_tokenizer"])) {
    if (step["type"] !== "Split" || step["invert"] === true) continue;
    // Gemma splits at spaces of which its normalizer leaves none.
    const idle = spacesReplaced && isObject(step["pattern"]) && step["pattern"]["String"] === " ";
    if (!idle && !/^(isolated|removed)$/i.test(String(step["behavior"])))
      throw unsupported(
        name,
        `has a Split pre-tokenizer with behavior ${JSON.stringify(step["behavior"])}, which Graft does not implement`,
      );
  }
}

/**
 * Rust decodes a run of byte tokens as UTF-8 if all of it is valid, else as one U+FFFD a byte, and keeps U+FEFF;
 * the library follows TextDecoder, which does neither.
 */
function correctByteFallback(decoder: DecoderStep | null): void {
  if (decoder === null) return;
  for (const step of decoder.decoders ?? []) correctByteFallback(step);
  if (decoder.config.type === "ByteFallback") decoder.decode_chain = decodeByteTokens;
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeByteTokens(tokens: string[]): string[] {
  const result: string[] = [];
  let run: number[] = [];
  const flush = (): void => {
    if (run.length === 0) return;
    try {
      result.push(strict.decode(Uint8Array.from(run)));
    } catch {
      result.push("\ufffd".repeat(run.length));
    }
    run = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
    if (byte !== null) run.push(Number.parseInt(byte[1]!, 16));
    else {
      flush();
      result.push(token);
    }
  }
  flush();
  return result;
}

/** Every object in a part of tokenizer.json, itself included. */
function* walk(value: unknown): Generator<JsonObject> {
  if (Array.isArray(value)) for (const item of value) yield* walk(item);
  else if (isObject(value)) {
    yield value;
    for (const item of Object.values(value)) yield* walk(item);
  }
}

/** How the tokens of this tokenizer spell bytes. */
export function spellingOf(tokenizer: JsonObject): TokenSpelling {
  const types = (part: string) => [...walk(tokenizer[part])].map((step) => step["type"]);
  if ([...types("pre_tokenizer"), ...types("decoder")].includes("ByteLevel")) return "byte-level";
  const model = tokenizer["model"] as JsonObject;
  const spaces = [...walk(tokenizer["decoder"])].some(
    (step) => step["type"] === "Metaspace" || (step["type"] === "Replace" && step["content"] === " "),
  );
  return model["byte_fallback"] === true || types("pre_tokenizer").includes("Metaspace") || spaces
    ? "sentencepiece"
    : "literal";
}

/** One more than the largest id of the vocabulary and the added tokens. */
export function vocabularyEnd({ tokenizer, addedTokens }: TokenizerFiles): number {
  const vocabulary = (tokenizer["model"] as JsonObject)["vocab"] as unknown[] | Record<string, number>;
  let end = 0;
  if (Array.isArray(vocabulary)) end = vocabulary.length;
  else for (const id of Object.values(vocabulary)) end = Math.max(end, id + 1);
  for (const { id } of addedTokens) end = Math.max(end, id + 1);
  return end;
}

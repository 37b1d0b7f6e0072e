import { dataError, type Place, quoteList } from "./problem.ts";
import {
  type Architecture,
  type RowKind,
  readMessages,
  requireRow,
  requireText,
  rowKeys,
} from "./row-checks.ts";
import { checkTokens, type Row, readIds } from "./row-ids.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { type Example, IGNORED_LABEL, type RowProcessor } from "./types.ts";

export type RowOptions = {
  /** What the rows are for. Default "decoder", a language model. */
  architecture?: Architecture | undefined;
  /** Reads the pictures of rows, and the text beside them; needed for rows with "image". */
  processor?: RowProcessor | undefined;
  /** Whether the model reads pictures. Default: if it has an encoder. */
  pictures?: boolean | undefined;
  /** Colour channels of processed pictures. Default 3. */
  imageChannels?: number | undefined;
  /** What is asked about a picture whose row has no "prompt", such as "<CAPTION>". */
  prompt?: string | undefined;
  /** Needed for every kind but "input-ids". */
  tokenizer?: Tokenizer | undefined;
  /** Longest example in tokens; what is beyond is cut off at the end. */
  maxLength?: number | undefined;
  /**
   * The same for examples made from text, where `maxLength` is not given: usually the model's own limit. Rows of token
   * ids are as long as whoever made them wanted.
   */
  textLimit?: number | undefined;
  /** The model's vocabulary size: tokens must be below it. */
  vocabSize?: number | undefined;
  /**
   * End {"text"} and {"prompt", "completion"} with the end token, unless they do already. Default: if the tokenizer
   * has one; for an encoder–decoder, as the tokenizer does by itself. Chats end as their template says.
   */
  appendEos?: boolean | undefined;
};

/** A row as tokens, and what was done to it. */
export type EncodedRow = {
  example: Example;
  truncated: boolean;
  tokenizedApart: boolean;
  ignoredKeys: string[];
};

/**
 * Check a row and turn it into token ids and labels.
 *
 * - text: every token is learned.
 * - prompt-completion: the two are tokenized together, as TRL does, and only the completion is learned. If the
 *   prompt's own tokens are not a prefix of the result (a token spans the border, as for a prompt that ends in a
 *   space), they are tokenized apart, so that training sees the tokens that generation will see.
 * - messages: rendered by the chat template; only what the assistant wrote is learned.
 * - input-ids: as given; labels default to the ids. Positions whose attention_mask is 0 at either end are padding and
 *   are dropped.
 * @throws DataError that names the place
 */
export function encodeRow(value: unknown, kind: RowKind, options: RowOptions, place: Place): EncodedRow {
  const row = requireRow(value, place, kind);
  const { required, optional } = rowKeys[kind];
  const known = new Set([...required, ...optional]);

  let inputIds: number[];
  let labels: number[];
  let tokenizedApart = false;
  if (kind === "input-ids") ({ inputIds, labels } = readIds(row, options.vocabSize, place));
  else {
    const { tokenizer } = options;
    if (tokenizer === undefined)
      throw dataError("no-tokenizer", place, `a row of ${quoteList(required)} needs a tokenizer. Pass one.`);
    if (kind === "text") {
      inputIds = encodeText(requireText(row, "text", place), tokenizer, options, place);
      labels = inputIds.slice();
    } else if (kind === "prompt-completion")
      ({ inputIds, labels, tokenizedApart } = encodePrompt(row, tokenizer, options, place));
    else ({ inputIds, labels } = encodeMessages(row, tokenizer, place));
    checkTokens(inputIds, "token", options.vocabSize, place);
  }
  if (inputIds.length === 0)
    throw dataError("no-tokens", place, "the row has no tokens. Remove it, or give it text.");

  const limit = kind === "input-ids" ? undefined : options.textLimit;
  const maxLength = options.maxLength ?? limit ?? Number.POSITIVE_INFINITY;
  const truncated = inputIds.length > maxLength;
  if (truncated) {
    inputIds.length = maxLength;
    labels.length = maxLength;
  }
  const example: Example = { inputIds, labels, file: place.file };
  if (place.line !== undefined) example.line = place.line;
  return {
    example,
    truncated,
    tokenizedApart,
    ignoredKeys: Object.keys(row).filter((key) => !known.has(key)),
  };
}

function encodeText(text: string, tokenizer: Tokenizer, options: RowOptions, place: Place): number[] {
  if (text === "") throw dataError("no-tokens", place, '"text" is empty. Remove the row, or give it text.');
  const ids = tokenizer.encode(text);
  appendEos(ids, tokenizer, options, place);
  return ids;
}

/** The two texts of a row. @throws DataError "wrong-type", "no-tokens" if both are empty */
export function requirePair(row: Row, place: Place): { prompt: string; completion: string } {
  const prompt = requireText(row, "prompt", place);
  const completion = requireText(row, "completion", place);
  if (prompt !== "" || completion !== "") return { prompt, completion };
  throw dataError(
    "no-tokens",
    place,
    '"prompt" and "completion" are both empty. Remove the row, or give it text.',
  );
}

/** The error for `appendEos` without an end token to append. */
export const noEos = (tokenizer: Tokenizer, place: Place) =>
  dataError(
    "no-eos",
    place,
    `appendEos is set, but the tokenizer of ${tokenizer.name} names no eos_token. Add it to tokenizer_config.json.`,
  );

/** Push the end token, unless the ids end with it. */
export function appendEos(ids: number[], tokenizer: Tokenizer, options: RowOptions, place: Place): void {
  const eos = tokenizer.eosTokenId;
  if (options.appendEos === false) return;
  if (eos === undefined) {
    if (options.appendEos === true) throw noEos(tokenizer, place);
    return;
  }
  if (ids.at(-1) !== eos) ids.push(eos);
}

function encodePrompt(row: Row, tokenizer: Tokenizer, options: RowOptions, place: Place) {
  const { prompt, completion } = requirePair(row, place);
  // A tokenizer that ends every text itself would end the prompt too.
  const withoutEnd = (ids: number[]): number[] => (tokenizer.addsEos ? ids.slice(0, -1) : ids);
  const promptIds = withoutEnd(tokenizer.encode(prompt));
  let inputIds = withoutEnd(tokenizer.encode(prompt + completion));
  const tokenizedApart = promptIds.length > inputIds.length || promptIds.some((id, i) => inputIds[i] !== id);
  if (tokenizedApart) inputIds = [...promptIds, ...tokenizer.encodeContinuation(completion)];
  if (tokenizer.addsEos) inputIds.push(tokenizer.eosTokenId!);
  else appendEos(inputIds, tokenizer, options, place);
  const labels = inputIds.map((id, i) => (i < promptIds.length ? IGNORED_LABEL : id));
  return { inputIds, labels, tokenizedApart };
}

function encodeMessages(row: Row, tokenizer: Tokenizer, place: Place) {
  const { messages, tools } = readMessages(row, place);
  let encoded: ReturnType<Tokenizer["encodeChat"]>;
  try {
    encoded = tokenizer.encodeChat(messages, tools === undefined ? {} : { tools });
  } catch (cause) {
    const { code = "chat-template", message = String(cause) } = (cause ?? {}) as {
      code?: string;
      message?: string;
    };
    throw dataError(code, place, message, {}, cause);
  }
  const { inputIds, assistantMask } = encoded;
  return { inputIds, labels: inputIds.map((id, i) => (assistantMask[i] === 1 ? id : IGNORED_LABEL)) };
}

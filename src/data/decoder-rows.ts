import { dataError, type Place, quoteList } from "./problem.ts";
import { foundKey, type RowKind, requireRow, requireText, rowKeys } from "./row-checks.ts";
import { checkTokens, type Row, readDecoderIds } from "./row-ids.ts";
import { type EncodedRow, noEos, type RowOptions, requirePair } from "./rows.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { Example } from "./types.ts";

/** Token ids cut to a limit. */
type Cut = { ids: number[]; truncated: boolean };

/**
 * Check a row for an encoder–decoder and turn it into the encoder's token ids and the decoder's labels; its picture is
 * read apart (see pictures.ts).
 *
 * - prompt-completion: both with the tokenizer's special tokens, as transformers' `text_target=`. What is too long is cut
 *   on each side as tokenizers cut it: the text is shortened, its special tokens stay.
 * - image-text: the processor's placeholders and prompt; the completion as above. A prompt that is too long is cut at its
 *   end, as the reference does; placeholders never are.
 * - input-ids, pixel-values: as given. Padding at the end of the ids, where attention_mask is 0, is dropped.
 * @throws DataError that names the place
 */
export function encodeDecoderRow(
  value: unknown,
  kind: RowKind,
  options: RowOptions,
  place: Place,
): EncodedRow {
  const row = requireRow(value, place, kind);
  const [source, target] =
    kind === "prompt-completion"
      ? encodeTexts(row, options, place)
      : kind === "image-text"
        ? encodeAboutPicture(row, options, place)
        : givenIds(row, kind, options, place);
  if (source.ids.length === 0)
    throw dataError("no-tokens", place, "the row has no tokens. Remove it, or give it text.");
  const example: Example = { inputIds: source.ids, labels: target.ids, file: place.file };
  if (place.line !== undefined) example.line = place.line;
  const { required, optional } = rowKeys[kind];
  const known = new Set([...required.map((key) => foundKey(row, kind, key)), ...optional]);
  return {
    example,
    truncated: source.truncated || target.truncated,
    tokenizedApart: false,
    ignoredKeys: Object.keys(row).filter((key) => !known.has(key)),
  };
}

const limitOf = ({ maxLength, textLimit }: RowOptions): number =>
  maxLength ?? textLimit ?? Number.POSITIVE_INFINITY;

function encodeTexts(row: Row, options: RowOptions, place: Place): [Cut, Cut] {
  const { tokenizer, vocabSize } = options;
  if (tokenizer === undefined)
    throw dataError(
      "no-tokenizer",
      place,
      `a row of ${quoteList(rowKeys["prompt-completion"].required)} needs a tokenizer. Pass one.`,
    );
  const { prompt, completion } = requirePair(row, place);
  const limit = limitOf(options);
  const source = encodeCut(prompt, tokenizer, limit, place);
  const target = encodeTarget(completion, tokenizer, options, limit, place);
  checkTokens(source.ids, "token", vocabSize, place);
  checkTokens(target.ids, "token", vocabSize, place);
  return [source, target];
}

/** The completion; with `appendEos` an end token follows it that its tokenizer does not add. */
function encodeTarget(
  text: string,
  tokenizer: Tokenizer,
  { appendEos }: RowOptions,
  limit: number,
  place: Place,
): Cut {
  const eos = tokenizer.eosTokenId;
  if (appendEos !== true || tokenizer.addsEos) {
    const target = encodeCut(text, tokenizer, limit, place);
    if (target.ids.length > 0) return target;
    throw dataError(
      "no-tokens",
      place,
      '"completion" has no tokens, and the tokenizer adds none. Give it text, or pass appendEos.',
    );
  }
  if (eos === undefined) throw noEos(tokenizer, place);
  const { ids, truncated } = encodeCut(text, tokenizer, limit - 1, place);
  return { ids: ids.at(-1) === eos ? ids : [...ids, eos], truncated };
}

/**
 * Token ids with special tokens, at most `limit` of them: the text is cut at its end, the special tokens stay, as
 * `truncation=True` of a Hugging Face tokenizer does.
 * @throws DataError "max-length" if the special tokens alone are more
 */
export function encodeCut(text: string, tokenizer: Tokenizer, limit: number, place: Place): Cut {
  const ids = tokenizer.encode(text);
  if (ids.length <= limit) return { ids, truncated: false };
  const bare = tokenizer.encode(text, { addSpecialTokens: false });
  const extra = ids.length - bare.length;
  if (limit < extra)
    throw dataError(
      "max-length",
      place,
      `the tokenizer adds ${extra} tokens to every text, more than the limit of ${limit}. Raise maxLength.`,
      { limit, specialTokens: extra },
    );
  // The special tokens stand around the text: where it begins is where the rest is what an empty text gives.
  const around = tokenizer.encode("");
  let start = 0;
  while (
    start < extra &&
    !(bare.every((id, i) => ids[start + i] === id) && around.every((id, i) => id === idAround(start, i)))
  )
    start++;
  function idAround(before: number, i: number): number | undefined {
    return ids[i < before ? i : i + bare.length];
  }
  const kept = limit - extra;
  return {
    ids: [...ids.slice(0, start + kept), ...ids.slice(start + bare.length)],
    truncated: true,
  };
}

function encodeAboutPicture(row: Row, options: RowOptions, place: Place): [Cut, Cut] {
  const { processor, vocabSize } = options;
  if (processor === undefined) throw noProcessor(place);
  const ids = processor.encodePrompt(promptOf(row, options, place), place);
  checkTokens(ids, "token", vocabSize, place);
  const source = cutPrompt(ids, limitOf(options), options, place);
  const labels = processor.encodeCompletion(completionOf(row, place));
  checkTokens(labels, "token", vocabSize, place);
  const limit = limitOf(options);
  const truncated = labels.length > limit;
  // The end token stays.
  const target = truncated ? [...labels.slice(0, limit - 1), ...labels.slice(-1)] : labels;
  if (target.length === 0)
    throw dataError("no-tokens", place, "the completion has no tokens. Give it text, or remove the row.");
  return [source, { ids: target, truncated }];
}

export const noProcessor = (place: Place) =>
  dataError(
    "no-processor",
    place,
    'the row has a picture ("image"), which needs the model\'s processor. Pass processor: createRowProcessor(…), ' +
      'or give rows of {"pixel_values_file", "input_ids", "labels"}.',
  );

/** What is asked about a row's picture. @throws DataError "no-prompt", "wrong-type" */
export function promptOf(row: Row, { prompt }: RowOptions, place: Place): string {
  if (row["prompt"] != null) return requireText(row, "prompt", place);
  if (prompt !== undefined) return prompt;
  throw dataError(
    "no-prompt",
    place,
    'the row has no "prompt", and there is no other for all rows. Add one, or pass prompt ("<CAPTION>", say).',
  );
}

/** What is to be written about a row's picture. @throws DataError "ambiguous-row", "wrong-type" */
export function completionOf(row: Row, place: Place): string {
  const key = foundKey(row, "image-text", "completion")!;
  if (key !== "completion" && Object.hasOwn(row, "text") && Object.hasOwn(row, "caption"))
    throw dataError(
      "ambiguous-row",
      place,
      'the row has both "text" and "caption". Rename the one that is to be learned to "completion".',
      { keys: ["text", "caption"] },
    );
  return requireText(row, key, place);
}

function cutPrompt(ids: number[], limit: number, { maxLength }: RowOptions, place: Place): Cut {
  if (ids.length <= limit) return { ids, truncated: false };
  // Placeholders are one token again and again, and lead.
  const end = ids.findIndex((id) => id !== ids[0]);
  const placeholders = end < 0 ? ids.length : end;
  if (placeholders <= limit) return { ids: ids.slice(0, limit), truncated: true };
  throw dataError(
    "picture-too-long",
    place,
    `the picture takes ${placeholders} tokens, more than ${maxLength === undefined ? "the model's" : "maxLength's"} ${limit}. ` +
      (maxLength === undefined
        ? "The processor belongs to another model: use this model's."
        : "Raise maxLength: a picture cannot be cut."),
    { placeholders, limit },
  );
}

function givenIds(row: Row, kind: RowKind, options: RowOptions, place: Place): [Cut, Cut] {
  const { maxLength, textLimit, vocabSize } = options;
  const { inputIds, labels } = readDecoderIds(row, vocabSize, place);
  const sides = { input_ids: inputIds, labels };
  for (const [key, { length }] of Object.entries(sides)) {
    const tooLong = (limit: number, whose: string, remedy: string) =>
      dataError("too-long", place, `"${key}" has ${length} values, more than ${whose} ${limit}. ${remedy}`, {
        key,
        length,
        limit,
      });
    if (kind === "pixel-values" && maxLength !== undefined && length > maxLength)
      throw tooLong(maxLength, "maxLength's", "Rows with processed pictures are not cut: raise maxLength.");
    if (textLimit !== undefined && Math.min(length, maxLength ?? length) > textLimit)
      throw tooLong(textLimit, "the model's positions, which are", "Shorten the row.");
  }
  const cut = (ids: number[]): Cut => {
    const truncated = maxLength !== undefined && ids.length > maxLength;
    return { ids: truncated ? ids.slice(0, maxLength) : ids, truncated };
  };
  return [cut(inputIds), cut(labels)];
}

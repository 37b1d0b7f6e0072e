import { dataError, describeValue, type Place } from "./problem.ts";
import { IGNORED_LABEL } from "./types.ts";

export type Row = Record<string, unknown>;

/** A row's token ids and labels, equally long, without the padding at their ends. @throws DataError */
export function readIds(row: Row, vocabSize: number | undefined, place: Place) {
  const inputIds = readIntegers(row, "input_ids", place);
  const labels = row["labels"] == null ? inputIds.slice() : readIntegers(row, "labels", place);
  requireLength(labels, "labels", inputIds, place);
  const mask = readMask(row, inputIds, place);
  checkTokens(inputIds, "input_ids", vocabSize, place);
  checkTokens(labels, "labels", vocabSize, place);
  if (mask === undefined) return { inputIds, labels };
  const { start, end } = unmaskedPart(mask, place);
  return { inputIds: inputIds.slice(start, end), labels: labels.slice(start, end) };
}

/**
 * A row's token ids and its decoder's labels, which are as they stand in the row; of the ids, padding at the end is dropped.
 * Padding before them is refused: models with a table of positions count it, so that dropping it would change the result.
 * @throws DataError
 */
export function readDecoderIds(row: Row, vocabSize: number | undefined, place: Place) {
  const inputIds = readIntegers(row, "input_ids", place);
  if (row["labels"] == null)
    throw dataError(
      "missing-keys",
      place,
      'the row lacks "labels", the tokens that the decoder is to write. Add them; they need not be as many as "input_ids".',
      { missing: ["labels"] },
    );
  const labels = readIntegers(row, "labels", place);
  const mask = readMask(row, inputIds, place);
  checkTokens(inputIds, "input_ids", vocabSize, place);
  checkTokens(labels, "labels", vocabSize, place);
  if (labels.length === 0)
    throw dataError("no-tokens", place, '"labels" is empty. Remove the row, or give at least the end token.');
  const { start, end } = mask === undefined ? { start: 0, end: inputIds.length } : unmaskedPart(mask, place);
  if (end === 0) throw dataError("no-tokens", place, "the row has no tokens. Remove it, or give it some.");
  if (start > 0)
    throw dataError(
      "masked-start",
      place,
      `"attention_mask" begins with ${start} zeros. Padding before the tokens would shift their positions: move it to the end, or leave it out.`,
      { position: 0 },
    );
  return { inputIds: inputIds.slice(0, end), labels };
}

function readIntegers(row: Row, key: string, place: Place): number[] {
  const values = row[key];
  if (!Array.isArray(values))
    throw dataError(
      "wrong-type",
      place,
      `"${key}" must be a list of integers, got ${describeValue(values)}.`,
      { key },
    );
  const bad = values.findIndex((value) => !Number.isSafeInteger(value));
  if (bad >= 0)
    throw dataError(
      "wrong-type",
      place,
      `"${key}"[${bad}] must be an integer, got ${describeValue(values[bad])}.`,
      { key, position: bad },
    );
  return values.slice() as number[];
}

function requireLength(
  values: readonly number[],
  key: string,
  inputIds: readonly number[],
  place: Place,
): void {
  if (values.length !== inputIds.length)
    throw dataError(
      "length-mismatch",
      place,
      `"${key}" has ${values.length} values, "input_ids" has ${inputIds.length}. They must be equally long.`,
      { key },
    );
}

function readMask(row: Row, inputIds: readonly number[], place: Place): number[] | undefined {
  if (row["attention_mask"] == null) return undefined;
  const mask = readIntegers(row, "attention_mask", place);
  requireLength(mask, "attention_mask", inputIds, place);
  return mask;
}

/** Where the ones of an attention mask are; `start` and `end` are 0 if there is none. */
function unmaskedPart(mask: readonly number[], place: Place): { start: number; end: number } {
  const odd = mask.findIndex((bit) => bit !== 0 && bit !== 1);
  if (odd >= 0)
    throw dataError("wrong-type", place, `"attention_mask"[${odd}] is ${mask[odd]}; it must be 0 or 1.`, {
      position: odd,
    });
  const start = mask.indexOf(1);
  if (start < 0) return { start: 0, end: 0 };
  const end = mask.lastIndexOf(1) + 1;
  const hole = mask.slice(start, end).indexOf(0);
  if (hole >= 0)
    throw dataError(
      "masked-inside",
      place,
      `"attention_mask"[${start + hole}] is 0 between tokens that are 1. Only padding at the ends can be masked; ` +
        'to leave tokens out of the loss, set their "labels" to -100.',
      { position: start + hole },
    );
  return { start, end };
}

/** @throws DataError "token-out-of-range" that names position and token. */
export function checkTokens(
  ids: readonly number[],
  key: string,
  vocabSize: number | undefined,
  place: Place,
): void {
  const limit = vocabSize ?? 2 ** 31;
  for (let position = 0; position < ids.length; position++) {
    const token = ids[position]!;
    if (token >= 0 && token < limit) continue;
    if (key === "labels" && token === IGNORED_LABEL) continue;
    const allowed = `0 to ${limit - 1}${key === "labels" ? ", or -100 for no loss" : ""}`;
    const remedy =
      key === "token"
        ? "The tokenizer has more tokens than the model: use the tokenizer that belongs to it."
        : "Tokenize with the tokenizer that belongs to the model.";
    throw dataError(
      "token-out-of-range",
      place,
      `${key === "token" ? "the token" : `"${key}"`} at position ${position} is ${token}, outside the vocabulary (${allowed}). ${remedy}`,
      { position, token, vocabSize: limit, key },
    );
  }
}

import { type Dataset, type Example, IGNORED_LABEL, textOf } from "../data/index.ts";
import { DataError, isGraftError } from "../errors.ts";
import { ImageTextToTextLM, type LanguageModel, Seq2SeqLM } from "../models/index.ts";

export type DatasetChecks = {
  readonly model: LanguageModel;
  /** Longer examples are cut at the end. */
  readonly maxLength?: number | undefined;
};

/** A dataset whose examples the model can read: cut to length, and with an error that says where one is wrong. */
export const checkedDataset = (dataset: Dataset, { model, maxLength }: DatasetChecks): Dataset => ({
  name: dataset.name,
  length: dataset.length,
  async get(index) {
    const example = cut(await dataset.get(index), maxLength);
    const where = placeOf(dataset, index, example);
    checkTokens(example, model, where);
    if (model instanceof Seq2SeqLM) checkLengths(example, model, where);
    if (model instanceof ImageTextToTextLM) checkPicture(example, model, where);
    return example;
  },
  getText: async (index) => cut(await textOf(dataset, index), maxLength),
});

type Where = { readonly place: string; readonly details: Readonly<Record<string, unknown>> };

function placeOf({ name }: Dataset, index: number, { file, line }: Example): Where {
  const place =
    file === undefined ? `${name}, example ${index + 1}` : line === undefined ? file : `${file}:${line}`;
  return { place, details: { dataset: name, index, file, line } };
}

const cut = (example: Example, maxLength = Infinity): Example =>
  example.inputIds.length <= maxLength && example.labels.length <= maxLength
    ? example
    : {
        ...example,
        inputIds: example.inputIds.slice(0, maxLength),
        labels: example.labels.slice(0, maxLength),
      };

function checkTokens({ inputIds, labels }: Example, model: LanguageModel, { place, details }: Where): void {
  const { vocabSize } = model;
  const imageToken = model instanceof ImageTextToTextLM ? model.imageTokenId : undefined;
  const outside = (what: "token" | "label", position: number, token: number): DataError => {
    const allowed = `0 to ${vocabSize - 1}${what === "label" ? `, or ${IGNORED_LABEL} for no loss` : ""}`;
    return new DataError(
      `${place}: the ${what} at position ${position} is ${token}, outside the vocabulary (${allowed}). Tokenize with the tokenizer that belongs to the model.`,
      { code: "token-out-of-range", details: { ...details, position, token, vocabSize } },
    );
  };
  for (let i = 0; i < inputIds.length; i++)
    if (!model.hasToken(inputIds[i]) && inputIds[i] !== imageToken) throw outside("token", i, inputIds[i]!);
  for (const [i, label] of labels.entries())
    if (label !== IGNORED_LABEL && !model.hasToken(label)) throw outside("label", i, label);
}

/** Positions are rows of a table: there are none beyond it. */
function checkLengths({ inputIds, labels }: Example, model: Seq2SeqLM, { place, details }: Where): void {
  const { maxPositions } = model;
  for (const [what, { length }] of [
    ["input", inputIds],
    ["labels", labels],
  ] as const)
    if (length > maxPositions)
      throw new DataError(
        `${place}: the ${what} ${what === "input" ? "has" : "have"} ${length} tokens, and the model has ${maxPositions} positions. Shorten the text, or set maxLength.`,
        { code: "too-long", details: { ...details, length, maxPositions } },
      );
}

function checkPicture(
  { inputIds, pixelValues }: Example,
  model: ImageTextToTextLM,
  { place, details }: Where,
): void {
  let [features, size] = [0, "no picture"];
  if (pixelValues) {
    const [channels, height, width] = pixelValues.shape as [number, number, number];
    if (pixelValues.shape.length !== 3 || channels !== model.imageChannels)
      throw new DataError(
        `${place}: the picture's values have shape [${pixelValues.shape.join(", ")}], expected [${model.imageChannels}, height, width].`,
        { code: "picture-shape", details: { ...details, shape: pixelValues.shape } },
      );
    size = `a picture of ${height} × ${width}`;
    try {
      features = model.imageTokens({ height, width });
    } catch (error) {
      if (!isGraftError(error)) throw error;
      throw new DataError(`${place}: ${error.message}`, { code: error.code, details, cause: error });
    }
  }
  const tokens = inputIds.filter((id: number) => id === model.imageTokenId).length;
  if (tokens !== features)
    throw new DataError(
      `${place}: the input has ${tokens} image tokens (${model.imageTokenId}) for ${size}, of which the model makes ${features} features. It needs one token for each.`,
      {
        code: "image-tokens",
        details: { ...details, tokens, features, imageTokenId: model.imageTokenId },
      },
    );
}

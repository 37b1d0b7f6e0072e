import { type Dataset, openDataset, rowKinds } from "../data/index.ts";
import { isGraftError } from "../errors.ts";
import { withAdvice } from "./errors.ts";
import { choice, type FlagValues, negatable, number, text, texts } from "./flags.ts";
import type { LoadedModel } from "./model.ts";

/** How data is read, for commands that read any. */
export const dataFlags = {
  data: texts(
    "Data: .jsonl, .json or .txt files, a directory of them, or a quoted pattern. May be given several times.",
    { placeholder: "file" },
  ),
  dataFormat: choice("How files are read. Default: by extension.", ["rows", "text"]),
  dataKind: choice("What the rows are. Default: what the first one is.", rowKinds),
  blockSize: number(
    "Tokens per example of plain text. Default: the maximum length, at most 512.",
    {},
    atLeast2,
  ),
  appendEos: negatable("End texts and completions with the end token. Default: if the tokenizer has one."),
};

export const maxLengthFlag = {
  maxLength: number(
    "Longest example, in tokens; longer ones are cut. Default: the model's limit for text, none for rows of input_ids.",
    {},
    atLeast2,
  ),
};

export const tokenizerFlag = {
  tokenizer: text("Directory of tokenizer.json. Default: the model's.", { placeholder: "dir" }),
};

function atLeast2(n: number): string | undefined {
  return Number.isSafeInteger(n) && n >= 2 ? undefined : "must be a whole number of at least 2";
}

type DataSettings = Pick<
  FlagValues<typeof dataFlags>,
  "dataFormat" | "dataKind" | "blockSize" | "appendEos"
> & {
  readonly maxLength?: number | undefined;
};

/** Opens data for a model and checks its rows. @throws DataError naming file and line of what is wrong. */
export async function openData(
  locations: readonly string[],
  { dataFormat, dataKind, blockSize, appendEos, maxLength }: DataSettings,
  { model, tokenizer, tokenizerProblem }: LoadedModel,
): Promise<Dataset> {
  const limit = model.maxPositions;
  const open = async (): Promise<Dataset> => {
    const dataset = await openDataset(locations, {
      format: dataFormat,
      kind: dataKind,
      tokenizer,
      vocabSize: model.vocabSize,
      maxLength,
      textLimit: limit,
      blockSize: blockSize ?? maxLength ?? Math.min(512, limit),
      appendEos,
      validate: true,
    });
    await dataset.get(0); // rows that need a tokenizer, or that it cannot read, are found before anything is loaded
    return dataset;
  };
  try {
    return await open();
  } catch (error) {
    if (isGraftError(error) && error.code === "no-tokenizer" && tokenizerProblem !== undefined)
      throw withAdvice(error, `${tokenizerProblem.message} Or give rows of {"input_ids"}.`);
    throw error;
  }
}

/** What reading the data has brought to light, once it has been read. */
export function dataNotes({ name, stats }: Dataset, maxLength: number): string[] {
  if (stats === undefined) return [];
  const { truncated, withoutLabels, ignoredKeys } = stats;
  return [
    truncated > 0 && `${name}: ${count(truncated, "example")} longer than ${maxLength} tokens cut`,
    withoutLabels > 0 && `${name}: ${count(withoutLabels, "example")} without a token to learn`,
    ignoredKeys.length > 0 && `${name}: keys that mean nothing here: ${ignoredKeys.join(", ")}`,
  ].filter((note) => note !== false);
}

const count = (n: number, noun: string): string =>
  `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

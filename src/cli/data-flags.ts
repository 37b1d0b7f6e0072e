import { type Dataset, openDataset, rowKinds, textOf } from "../data/index.ts";
import { isGraftError } from "../errors.ts";
import { CausalLM, ImageTextToTextLM } from "../models/index.ts";
import { createRowProcessor } from "../processing/index.ts";
import { withAdvice } from "./errors.ts";
import { choice, type FlagValues, negatable, number, text, texts } from "./flags.ts";
import type { LoadedModel } from "./model.ts";

/** How data is read, for commands that read any. */
export const dataFlags = {
  data: texts(
    "Data: .jsonl, .json, .parquet or .txt files, a directory of them or of pictures with metadata.jsonl, or a quoted pattern. May be given several times.",
    { placeholder: "file" },
  ),
  dataFormat: choice("How files are read. Default: by extension.", ["rows", "text"]),
  dataKind: choice("What the rows are. Default: what the first one is.", rowKinds),
  taskPrompt: text('What is asked about pictures whose rows have no "prompt", such as <CAPTION>.', {
    placeholder: "text",
  }),
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
  "dataFormat" | "dataKind" | "taskPrompt" | "blockSize" | "appendEos"
> & {
  readonly maxLength?: number | undefined;
};

/**
 * Opens data for a model and checks its rows. Closing it ends what prepares its pictures, too.
 * @throws DataError naming file and line of what is wrong.
 */
export async function openData(
  locations: readonly string[],
  { dataFormat, dataKind, taskPrompt, blockSize, appendEos, maxLength }: DataSettings,
  { model, tokenizer, tokenizerProblem, processor, processorProblem }: LoadedModel,
): Promise<Dataset> {
  const limit = model.maxPositions;
  const pictures = model instanceof ImageTextToTextLM;
  const rowProcessor = processor && createRowProcessor(processor);
  let dataset: Dataset | undefined;
  const close = async (): Promise<void> => {
    await dataset?.close?.();
    await rowProcessor?.close();
  };
  try {
    dataset = await openDataset(locations, {
      format: dataFormat,
      kind: dataKind,
      architecture: model instanceof CausalLM ? "decoder" : "encoder-decoder",
      pictures,
      ...(pictures && { imageChannels: model.imageChannels }),
      processor: rowProcessor,
      prompt: taskPrompt,
      tokenizer,
      // A placeholder of a picture need not be in the vocabulary; the model checks further.
      vocabSize: pictures ? Math.max(model.vocabSize, model.imageTokenId + 1) : model.vocabSize,
      maxLength,
      textLimit: limit,
      blockSize: blockSize ?? maxLength ?? Math.min(512, limit),
      appendEos,
      validate: true,
    });
    await dataset.get(0); // rows that need a tokenizer, or that it cannot read, are found before anything is loaded
    return closing(dataset, close);
  } catch (error) {
    await close();
    if (!isGraftError(error)) throw error;
    if (error.code === "no-prompt") throw withAdvice(error, "On the command line it is --task-prompt.");
    if (error.code === "no-processor" && processorProblem !== undefined)
      throw withAdvice(error, processorProblem.message);
    if (error.code === "no-tokenizer" && tokenizerProblem !== undefined)
      throw withAdvice(error, `${tokenizerProblem.message} Or give rows of {"input_ids"}.`);
    throw error;
  }
}

/** The dataset with another way to close it. */
const closing = (dataset: Dataset, close: () => Promise<void>): Dataset => ({
  name: dataset.name,
  length: dataset.length,
  get: (index) => dataset.get(index),
  getText: (index) => textOf(dataset, index),
  get stats() {
    return dataset.stats!;
  },
  close,
});

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

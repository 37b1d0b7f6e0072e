import type { Dataset, Example } from "../data/index.ts";
import { IGNORED_LABEL } from "../data/index.ts";
import { DataError } from "../errors.ts";

export type DatasetChecks = {
  /** Tokens and labels must be below it. */
  readonly vocabSize: number;
  /** Longer examples are cut at the end. */
  readonly maxLength?: number | undefined;
};

/** A dataset whose examples the model can read: cut to length, and with an error that says where a token is wrong. */
export function checkedDataset(dataset: Dataset, { vocabSize, maxLength }: DatasetChecks): Dataset {
  return {
    name: dataset.name,
    length: dataset.length,
    async get(index) {
      const example = cut(await dataset.get(index), maxLength);
      const { inputIds, labels } = example;
      for (let i = 0; i < inputIds.length; i++) {
        if (!isToken(inputIds[i]!, vocabSize)) throw outside(dataset, index, example, "token", i, vocabSize);
        const label = labels[i];
        if (label !== undefined && label !== IGNORED_LABEL && !isToken(label, vocabSize))
          throw outside(dataset, index, example, "label", i, vocabSize);
      }
      return example;
    },
  };
}

const cut = (example: Example, maxLength = Infinity): Example =>
  example.inputIds.length <= maxLength
    ? example
    : {
        ...example,
        inputIds: example.inputIds.slice(0, maxLength),
        labels: example.labels.slice(0, maxLength),
      };

const isToken = (id: number, vocabSize: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabSize;

function outside(
  { name }: Dataset,
  index: number,
  { file, line, inputIds, labels }: Example,
  what: "token" | "label",
  position: number,
  vocabSize: number,
): DataError {
  const place =
    file === undefined ? `${name}, example ${index + 1}` : line === undefined ? file : `${file}:${line}`;
  const token = what === "token" ? inputIds[position] : labels[position];
  const allowed = `0 to ${vocabSize - 1}${what === "label" ? `, or ${IGNORED_LABEL} for no loss` : ""}`;
  return new DataError(
    `${place}: the ${what} at position ${position} is ${token}, outside the vocabulary (${allowed}). Tokenize with the tokenizer that belongs to the model.`,
    { code: "token-out-of-range", details: { dataset: name, index, file, line, position, token, vocabSize } },
  );
}

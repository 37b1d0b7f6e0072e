import { DataError } from "../errors.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { countLabels } from "./stats.ts";
import { type Batch, type Example, IGNORED_LABEL } from "./types.ts";

/**
 * What labels belong to: "aligned", one to each token of the input, for a model that continues it; "decoder", to a sequence
 * of their own.
 */
export type LabelLayout = "aligned" | "decoder";

export type CollateOptions = {
  /** Token to pad with; its attention mask is 0 and its label -100, so which one does not matter to the loss. */
  padTokenId: number;
  /** Where the input's padding goes; that of a decoder's labels is on the right. Default "right". */
  side?: "right" | "left";
  /** Round padded lengths up to a multiple of this, so that fewer shapes occur. Default 1. */
  padToMultipleOf?: number;
  /** Default "aligned". */
  labels?: LabelLayout;
};

/**
 * Pad examples to one length S, the longest of them rounded up to `padToMultipleOf`, and a decoder's labels to one length T.
 * Shapes: inputIds, attentionMask [B, S], labels [B, S] or [B, T], int64; pixelValues [images, channels, height, width].
 * Labels are not shifted. With padding on the left, the aligned label of an example's first token is -100 if padding stands
 * before it: no real token predicts it, so that the loss does not depend on the side.
 * @throws DataError "collate" for no examples, an empty one, labels of another length than the ids, or pictures of several
 * sizes.
 */
export function collate(examples: readonly Example[], options: CollateOptions): Batch {
  const { padTokenId, side = "right", padToMultipleOf = 1, labels: layout = "aligned" } = options;
  check(examples, options);
  const width = (sequences: readonly ArrayLike<number>[]): number =>
    Math.ceil(Math.max(...sequences.map(({ length }) => length)) / padToMultipleOf) * padToMultipleOf;
  const source = width(examples.map(({ inputIds }) => inputIds));
  const target = layout === "aligned" ? source : width(examples.map(({ labels }) => labels));
  const inputIds = filled(examples.length, source, padTokenId);
  const attentionMask = filled(examples.length, source, 0);
  const labels = filled(examples.length, target, IGNORED_LABEL);
  let [tokens, labelTokens] = [0, 0];
  examples.forEach((example, row) => {
    const { length } = example.inputIds;
    const before = side === "left" ? source - length : 0;
    write(inputIds, row, before, example.inputIds);
    attentionMask.data.fill(1n, row * source + before, row * source + before + length);
    write(labels, row, layout === "aligned" ? before : 0, example.labels);
    if (layout === "aligned" && before > 0) labels.data[row * source + before] = BigInt(IGNORED_LABEL);
    tokens += length;
    labelTokens +=
      layout === "aligned"
        ? countLabels(example.labels)
        : example.labels.filter((label) => label !== IGNORED_LABEL).length;
  });
  const pictures = examples.flatMap(({ pixelValues }) => pixelValues ?? []);
  return {
    inputIds,
    attentionMask,
    labels,
    ...(pictures.length > 0 && { pixelValues: stack(pictures) }),
    tokens,
    labelTokens,
  };
}

const filled = (rows: number, width: number, value: number): Tensor<"int64"> =>
  tensor("int64", [rows, width], new BigInt64Array(rows * width).fill(BigInt(value)));

function write({ shape, data }: Tensor<"int64">, row: number, start: number, ids: ArrayLike<number>): void {
  const from = row * shape[1]! + start;
  for (let i = 0; i < ids.length; i++) data[from + i] = BigInt(ids[i]!);
}

/** Pictures of one size one after the other. */
function stack(pictures: readonly Tensor<"float32">[]): Tensor<"float32"> {
  const [{ shape, data }] = pictures as [Tensor<"float32">];
  const values = new Float32Array(pictures.length * data.length);
  pictures.forEach((picture, i) => {
    values.set(picture.data, i * data.length);
  });
  return tensor("float32", [pictures.length, ...shape], values);
}

/** What the pictures of one batch have in common; undefined without a picture. */
export const pictureSize = ({ pixelValues }: Example): string | undefined => pixelValues?.shape.join(" × ");

const fail = (what: string) => new DataError(`collate: ${what}`, { code: "collate" });

function check(
  examples: readonly Example[],
  { padTokenId, padToMultipleOf = 1, labels: layout = "aligned" }: CollateOptions,
): void {
  if (examples.length === 0) throw fail("there are no examples. Give at least one.");
  if (!Number.isInteger(padTokenId) || padTokenId < 0)
    throw fail(
      `padTokenId must be a token id, got ${padTokenId}. Use the tokenizer's padTokenId, or 0 if it has none.`,
    );
  if (!Number.isInteger(padToMultipleOf) || padToMultipleOf < 1)
    throw fail(`padToMultipleOf must be a positive integer, got ${padToMultipleOf}.`);
  examples.forEach(({ inputIds, labels, file, line }, i) => {
    const which =
      file === undefined ? `example ${i}` : `example ${i} (${file}${line === undefined ? "" : `:${line}`})`;
    if (inputIds.length === 0) throw fail(`${which} has no tokens.`);
    if (layout === "decoder" && labels.length === 0) throw fail(`${which} has no labels.`);
    if (layout === "aligned" && labels.length !== inputIds.length)
      throw fail(
        `${which} has ${labels.length} labels for ${inputIds.length} tokens. They must be equally long.`,
      );
  });
  const sizes = new Set(examples.map(pictureSize).filter((size) => size !== undefined));
  if (sizes.size > 1)
    throw fail(
      `the pictures have ${sizes.size} sizes (${[...sizes].join(", ")}). Put those of one size together.`,
    );
}

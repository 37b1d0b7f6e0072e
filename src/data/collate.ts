import { DataError } from "../errors.ts";
import { type Tensor, tensor } from "../tensor/index.ts";
import { countLabels } from "./stats.ts";
import { type Batch, type Example, type ExamplePlace, IGNORED_LABEL, type UnreadPicture } from "./types.ts";

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
  /**
   * Which examples share a row, by their places in the list, for a model that keeps them apart (`segments`).
   * Default: each has a row of its own.
   */
  rows?: readonly (readonly number[])[];
};

/**
 * Pad examples to one length S, the longest row rounded up to `padToMultipleOf`, and a decoder's labels to one length T.
 * Shapes: inputIds, attentionMask [B, S], labels [B, S] or [B, T], int64; pixelValues [images, channels, height, width].
 * Labels are not shifted. The aligned label of an example's first token is -100 if anything stands before it, padding or
 * another example: no token of its own predicts it, so that the loss depends neither on the side nor on packing.
 * @throws DataError "collate" for no examples, an empty one, labels of another length than the ids, pictures of several
 * sizes, or rows that do not have each example once.
 */
export function collate(examples: readonly Example[], options: CollateOptions): Batch {
  const { padTokenId, labels: layout = "aligned", rows } = options;
  check(examples, options);
  const { places, width } = placeExamples(examples, options);
  const count = rows?.length ?? examples.length;
  const target =
    layout === "aligned" ? width : roundUp(Math.max(...places.map(({ labels }) => labels)), options);
  const inputIds = filled(count, width, padTokenId);
  const attentionMask = filled(count, width, 0);
  const labels = filled(count, target, IGNORED_LABEL);
  let [tokens, labelTokens] = [0, 0];
  for (const { index, row, start, length } of places) {
    const example = examples[index]!;
    const from = row * width + start;
    write(inputIds, from, example.inputIds);
    attentionMask.data.fill(1n, from, from + length);
    write(labels, layout === "aligned" ? from : row * target, example.labels);
    if (layout === "aligned" && start > 0) labels.data[from] = BigInt(IGNORED_LABEL);
    tokens += length;
    labelTokens +=
      layout === "aligned"
        ? countLabels(example.labels)
        : example.labels.filter((label) => label !== IGNORED_LABEL).length;
  }
  return {
    inputIds,
    attentionMask,
    labels,
    ...picturesOf(examples),
    ...(rows && segmentsOf(places, [count, width])),
    places,
    tokens,
    labelTokens,
  };
}

/** Where each example's tokens go, and the length that rows are padded to. */
function placeExamples(
  examples: readonly Example[],
  options: CollateOptions,
): { places: ExamplePlace[]; width: number } {
  const { side = "right", rows = examples.map((_, i) => [i]) } = options;
  const lengths = rows.map((row) => row.reduce((sum, i) => sum + examples[i]!.inputIds.length, 0));
  const width = roundUp(Math.max(...lengths), options);
  const places = new Array<ExamplePlace>(examples.length);
  for (const [row, indices] of rows.entries()) {
    let start = side === "left" ? width - lengths[row]! : 0;
    for (const index of indices) {
      const { inputIds, labels } = examples[index]!;
      places[index] = { index, row, start, length: inputIds.length, labels: labels.length };
      start += inputIds.length;
    }
  }
  return { places, width };
}

/** Which example of its row each token belongs to, and its position in it. */
function segmentsOf(
  places: readonly ExamplePlace[],
  [count, width]: readonly [number, number],
): { segments: Tensor<"int64">; positionIds: Tensor<"int64"> } {
  const segments = filled(count, width, 0);
  const positionIds = filled(count, width, 0);
  const used = new Array<number>(count).fill(0);
  for (const { row, start, length } of places.toSorted((a, b) => a.row - b.row || a.start - b.start)) {
    const from = row * width + start;
    segments.data.fill(BigInt(++used[row]!), from, from + length);
    for (let i = 0; i < length; i++) positionIds.data[from + i] = BigInt(i);
  }
  return { segments, positionIds };
}

const roundUp = (length: number, { padToMultipleOf = 1 }: CollateOptions): number =>
  Math.ceil(length / padToMultipleOf) * padToMultipleOf;

const filled = (rows: number, width: number, value: number): Tensor<"int64"> =>
  tensor("int64", [rows, width], new BigInt64Array(rows * width).fill(BigInt(value)));

function write({ data }: Tensor<"int64">, from: number, ids: ArrayLike<number>): void {
  for (let i = 0; i < ids.length; i++) data[from + i] = BigInt(ids[i]!);
}

/** The pictures of all examples that have one, to be read later if one of them is. */
function picturesOf(examples: readonly Example[]): Pick<Batch, "pixelValues" | "unreadPictures"> {
  const pictures = examples.flatMap(({ pixelValues, unreadPicture }) => pixelValues ?? unreadPicture ?? []);
  const [first] = pictures;
  if (first === undefined) return {};
  const isRead = (picture: Tensor<"float32"> | UnreadPicture): picture is Tensor<"float32"> =>
    "data" in picture;
  if (pictures.every(isRead)) return { pixelValues: stack(pictures) };
  const read = async (place: number): Promise<Tensor<"float32">> => {
    const picture = pictures[place]!;
    return isRead(picture) ? picture : picture.read();
  };
  return {
    unreadPictures: {
      shape: [pictures.length, ...first.shape],
      read: async (places) => stack(await Promise.all(places.map(read))),
    },
  };
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
export const pictureSize = ({ pixelValues, unreadPicture }: Example): string | undefined =>
  (pixelValues ?? unreadPicture)?.shape.join(" × ");

/** Shape of a batch's pictures, [images, channels, height, width], read or not; undefined if it has none. */
export const picturesShape = ({ pixelValues, unreadPictures }: Batch): readonly number[] | undefined =>
  (pixelValues ?? unreadPictures)?.shape;

const fail = (what: string) => new DataError(`collate: ${what}`, { code: "collate" });

function check(
  examples: readonly Example[],
  { padTokenId, padToMultipleOf = 1, labels: layout = "aligned", rows }: CollateOptions,
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
  if (rows) checkRows(rows, examples.length, layout);
  const sizes = new Set(examples.map(pictureSize).filter((size) => size !== undefined));
  if (sizes.size > 1)
    throw fail(
      `the pictures have ${sizes.size} sizes (${[...sizes].join(", ")}). Put those of one size together.`,
    );
}

function checkRows(rows: readonly (readonly number[])[], examples: number, layout: LabelLayout): void {
  if (layout === "decoder") throw fail("a decoder's labels have a row each. Leave out rows.");
  const indices = rows.flat().sort((a, b) => a - b);
  if (
    indices.length !== examples ||
    indices.some((index, i) => index !== i) ||
    rows.some((row) => row.length === 0)
  )
    throw fail(
      `rows must have each of the ${examples} examples once, and none may be empty, got ${JSON.stringify(rows)}.`,
    );
}

import type { Batch, ExamplePlace } from "../../data/index.ts";
import { numel, type Tensor, tensor } from "../../tensor/index.ts";

/** The tokens, and with `labels` the labels, of one example, without the padding of its batch. */
export function ownTokens(
  batch: Batch,
  position: number,
  { labels }: { labels: boolean },
): Record<string, Tensor> {
  const place = batch.places[position]!;
  return {
    input_ids: columns(batch.inputIds, place, place.start, place.length),
    // Its first token's place, where that is not the first of its row: positions count from there.
    ...(batch.segments === undefined &&
      place.start > 0 && { start: tensor("int64", [1], BigInt64Array.of(BigInt(place.start))) }),
    ...(labels && { labels: columns(batch.labels, place, 0, place.labels) }),
  };
}

const columns = (
  { shape, data }: Tensor<"int64">,
  { row }: ExamplePlace,
  start: number,
  length: number,
): Tensor<"int64"> => {
  const from = row * shape[1]! + start;
  return tensor("int64", [length], data.slice(from, from + length));
};

/** The batch of some of a batch's rows, each with one example. */
export function rowsOf(batch: Batch, positions: readonly number[]): Batch {
  const rows = positions.map((position) => batch.places[position]!.row);
  const { inputIds, attentionMask, labels, pixelValues, unreadPictures } = batch;
  return {
    inputIds: pick(inputIds, rows),
    attentionMask: pick(attentionMask, rows),
    labels: pick(labels, rows),
    ...(pixelValues && { pixelValues: pick(pixelValues, positions) }),
    ...(unreadPictures && {
      unreadPictures: {
        shape: [positions.length, ...unreadPictures.shape.slice(1)],
        read: (places) => unreadPictures.read(places.map((place) => positions[place]!)),
      },
    }),
    places: positions.map((position, row) => ({ ...batch.places[position]!, row })),
    tokens: positions.reduce((sum, position) => sum + batch.places[position]!.length, 0),
    labelTokens: batch.labelTokens,
  };
}

/** The batch with its pictures' values. */
export async function withPictures({ unreadPictures, ...batch }: Batch): Promise<Batch> {
  if (!unreadPictures) return batch;
  return { ...batch, pixelValues: await unreadPictures.read(batch.places.map((_, i) => i)) };
}

function pick<D extends "int64" | "float32">(
  { dtype, shape, data }: Tensor<D>,
  rows: readonly number[],
): Tensor<D> {
  const size = numel(shape.slice(1));
  const picked = data.slice(0, rows.length * size) as typeof data;
  for (const [i, row] of rows.entries())
    picked.set(data.subarray(row * size, (row + 1) * size) as never, i * size);
  return tensor(dtype, [rows.length, ...shape.slice(1)], picked);
}

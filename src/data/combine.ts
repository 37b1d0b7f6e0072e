import { DataError } from "../errors.ts";
import { permutation } from "../tensor/random.ts";
import { textOf } from "./prefetch.ts";
import { checkIndex } from "./row-dataset.ts";
import { mergeStats } from "./stats.ts";
import type { Dataset, DatasetStats, Example } from "./types.ts";

/** Examples that are already in memory. */
export const memoryDataset = (examples: readonly Example[], name = "examples"): Dataset => ({
  name,
  length: examples.length,
  async get(index) {
    checkIndex(index, examples.length, name);
    return examples[index]!;
  },
});

/** Several datasets one after the other; closing it closes them. */
export function concatDatasets(parts: readonly Dataset[]): Dataset {
  const starts: number[] = [];
  let length = 0;
  for (const part of parts) {
    starts.push(length);
    length += part.length;
  }
  const name = parts.map((part) => part.name).join(", ");
  /** The part that holds an example, and the example's index in it. */
  const find = (index: number): [Dataset, number] => {
    checkIndex(index, length, name);
    let [low, high] = [0, parts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle]! <= index) low = middle;
      else high = middle - 1;
    }
    return [parts[low]!, index - starts[low]!];
  };
  return {
    name,
    length,
    async get(index) {
      const [part, inside] = find(index);
      return part.get(inside);
    },
    getText: async (index) => textOf(...find(index)),
    get stats(): DatasetStats {
      return mergeStats(parts.map((part) => part.stats));
    },
    async close() {
      await Promise.all(parts.map((part) => part.close?.()));
    },
  };
}

/** The examples at `indices`, in that order. It does not own `dataset`: close that one. */
export const subset = (dataset: Dataset, indices: ArrayLike<number>, name = dataset.name): Dataset => ({
  name,
  length: indices.length,
  async get(index) {
    checkIndex(index, indices.length, name);
    return dataset.get(indices[index]!);
  },
  async getText(index) {
    checkIndex(index, indices.length, name);
    return textOf(dataset, indices[index]!);
  },
});

/** How much to hold out: a fraction of the examples (rounded, at least one) or a count. */
export type HeldOut = { fraction: number } | { count: number };

/**
 * Hold out a random part of a dataset. Which examples is decided by `seed` and the length alone; both parts keep the
 * order of the dataset. Both are views: close `dataset` when done.
 * @throws DataError "held-out" unless both parts get at least one example.
 */
export function splitDataset(
  dataset: Dataset,
  heldOut: HeldOut,
  seed = 0,
): { train: Dataset; heldOut: Dataset } {
  const { length, name } = dataset;
  const asked = "fraction" in heldOut ? `a fraction of ${heldOut.fraction}` : `${heldOut.count} examples`;
  const count =
    "count" in heldOut
      ? heldOut.count
      : heldOut.fraction > 0 && heldOut.fraction < 1
        ? Math.min(Math.max(1, Math.round(length * heldOut.fraction)), length - 1)
        : Number.NaN;
  if (!Number.isInteger(count) || count < 1 || count >= length)
    throw new DataError(
      `${name}: cannot hold out ${asked} of ${length} examples. Both parts need at least one: give a fraction between 0 and 1, or a count from 1 to ${length - 1}.`,
      { code: "held-out", details: { length, ...heldOut } },
    );
  const order = permutation(length, [seed, 0x5b117]);
  return {
    train: subset(dataset, order.slice(count).sort(), name),
    heldOut: subset(dataset, order.slice(0, count).sort(), `${name} (held out)`),
  };
}

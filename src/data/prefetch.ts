import type { Tensor } from "../tensor/index.ts";
import { type CollateOptions, collate, pictureSize } from "./collate.ts";
import { dataError } from "./problem.ts";
import type { Batch, Dataset, Example } from "./types.ts";

export type PrefetchOptions = {
  /** Results that may be under way or waiting at once. Default 2. */
  depth?: number;
  signal?: AbortSignal;
};

/** Resolves when all that is under way on this thread has had its turn. */
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, 0);
  });

/**
 * `prepare` each item ahead of its use, in order, at most `depth` at once. The next ones begin once whoever got this one
 * waits for something, such as the engine's thread: until then they would keep it from being asked. An error comes out in
 * its turn; leaving the loop early starts nothing more.
 */
export async function* prefetch<Item, Result>(
  items: Iterable<Item>,
  prepare: (item: Item) => Promise<Result>,
  { depth = 2, signal }: PrefetchOptions = {},
): AsyncGenerator<Result, void, undefined> {
  if (!Number.isInteger(depth) || depth < 1)
    throw new RangeError(`depth must be a positive integer, got ${depth}.`);
  const iterator = items[Symbol.iterator]();
  const waiting: Promise<Result>[] = [];
  let [done, left] = [false, false];
  const fill = (): void => {
    while (!done && waiting.length < depth) {
      const next = iterator.next();
      if (next.done === true) done = true;
      else {
        const { value } = next;
        const result = turn().then(() => {
          if (left) throw new Error("The loop was left."); // nobody hears of it
          return prepare(value);
        });
        result.catch(() => {}); // reported in its turn, below
        waiting.push(result);
      }
    }
  };
  try {
    for (fill(); waiting.length > 0; ) {
      signal?.throwIfAborted();
      const result = await waiting[0]!;
      signal?.throwIfAborted();
      waiting.shift();
      fill(); // so that the next ones are under way while this one is used
      yield result;
    }
  } finally {
    left = true;
    if (!done) iterator.return?.();
    await Promise.allSettled(waiting);
  }
}

/** A batch by what is in its rows: the index of an example, or with packing those of the examples that share a row. */
export type BatchIndices = readonly number[] | readonly (readonly number[])[];

/** The batches of an epoch after another, by epoch and place alone. */
export interface Sampler extends Iterable<BatchIndices> {
  /** Batches in this epoch. */
  readonly batchesPerEpoch: number;
  atEpoch(epoch: number): Sampler;
  /** From `start` on. */
  batches(start?: number): Iterable<BatchIndices>;
}

/** A batch of examples: in one part, or one for each size of picture. */
export type LoadedBatch = {
  /** Their `places` have indices in the dataset. */
  parts: readonly Batch[];
  /** Of its examples in the dataset. */
  indices: number[];
  /** Sums over the parts. */
  tokens: number;
  labelTokens: number;
};

export type LoadOptions = Omit<CollateOptions, "rows"> &
  PrefetchOptions & {
    /** Shape of the picture of an example whose values nobody will need; undefined for what is to be read. */
    readonly knownPicture?: ((index: number) => readonly number[] | undefined) | undefined;
  };

/** Batches of a dataset, read, tokenized and padded ahead of their use. `batches` is usually a BatchSampler. */
export const loadBatches = (
  dataset: Dataset,
  batches: Iterable<BatchIndices>,
  options: LoadOptions,
): AsyncGenerator<LoadedBatch, void, undefined> =>
  prefetch(
    batches,
    async (batch) => {
      const indices = batch.flat();
      const examples = await Promise.all(
        indices.map((index) => {
          const shape = options.knownPicture?.(index);
          return shape ? withoutPicture(dataset, index, shape) : dataset.get(index);
        }),
      );
      const part = (positions: readonly number[], rows?: number[][]): Batch => {
        const own = positions.map((position) => examples[position]!);
        const collated = collate(own, { ...options, ...(rows && { rows }) });
        const places = collated.places.map((place) => ({
          ...place,
          index: indices[positions[place.index]!]!,
        }));
        return { ...collated, places };
      };
      const rows = packedRows(batch);
      const parts = rows ? [part([...examples.keys()], rows)] : bySize(examples).map((group) => part(group));
      const sum = (key: "tokens" | "labelTokens"): number =>
        parts.reduce((total, one) => total + one[key], 0);
      return { parts, indices, tokens: sum("tokens"), labelTokens: sum("labelTokens") };
    },
    options,
  );

/** An example whose picture has this shape, and is read only when it is asked for. */
async function withoutPicture(dataset: Dataset, index: number, shape: readonly number[]): Promise<Example> {
  const { pixelValues: _, ...example } = await textOf(dataset, index);
  const read = async (): Promise<Tensor<"float32">> => {
    const { pixelValues, file = dataset.name, line } = await dataset.get(index);
    if (pixelValues && String(pixelValues.shape) === String(shape)) return pixelValues;
    throw dataError(
      "picture-changed",
      { file, ...(line !== undefined && { line }) },
      `the picture had the shape [${shape.join(", ")}] before, now ${pixelValues ? `[${pixelValues.shape.join(", ")}]` : "there is none"}. Leave the data as they are while a run reads them.`,
    );
  };
  return { ...example, unreadPicture: { shape, read } };
}

/** The rows of a packed batch, as places in the list of all its examples. */
function packedRows(batch: BatchIndices): number[][] | undefined {
  if (!batch.some((row) => typeof row !== "number")) return undefined;
  let next = 0;
  return batch.map((row) => (typeof row === "number" ? [next++] : row.map(() => next++)));
}

/** Examples with pictures of one size, or without any, together, in the order in which the sizes occur: their places in the list. */
function bySize(examples: readonly Example[]): number[][] {
  const groups = new Map<string | undefined, number[]>();
  for (const [position, example] of examples.entries()) {
    const size = pictureSize(example);
    const group = groups.get(size);
    if (group) group.push(position);
    else groups.set(size, [position]);
  }
  return [...groups.values()];
}

/** An example for its tokens alone. */
export const textOf = (dataset: Dataset, index: number): Promise<Example> =>
  dataset.getText ? dataset.getText(index) : dataset.get(index);

/** Tokens of every example, for BatchSampler's `lengths`; reads the whole dataset once, but for its pictures. */
export async function exampleLengths(
  dataset: Dataset,
  { signal }: { signal?: AbortSignal } = {},
): Promise<Uint32Array> {
  const lengths = new Uint32Array(dataset.length);
  for (let i = 0; i < lengths.length; i++) {
    signal?.throwIfAborted();
    lengths[i] = (await textOf(dataset, i)).inputIds.length;
  }
  return lengths;
}

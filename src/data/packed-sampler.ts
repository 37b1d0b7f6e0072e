import { DataError } from "../errors.ts";
import { permutation } from "../tensor/random.ts";
import type { BatchIndices } from "./prefetch.ts";

export type PackedSamplerOptions = {
  /** Tokens of each example. */
  lengths: ArrayLike<number>;
  /** Tokens up to which a row is filled; a longer example has a row of its own. */
  packLength: number;
  /** Rows per batch. */
  batchSize: number;
  /** Default true. Without it, rows are filled in the order of the examples. */
  shuffle?: boolean;
  seed?: number;
  epoch?: number;
};

/** Rows' worth of shuffled examples that are packed together: at most one row of a window is left half empty. */
const WINDOW = 64;

/**
 * Which examples share a row, and which rows make up each batch of an epoch, by seed and epoch alone, as in BatchSampler.
 *
 * The shuffled examples are cut into windows of about 64 rows; each is packed by best fit decreasing: from long to short,
 * an example goes into the row with the least room that is enough for it, or else into a new one. The rows of all windows
 * are shuffled. So an epoch has new rows in a new order, and not always as many as another.
 * Source: trl's `packing_strategy="bfd"`, which packs once for all epochs.
 * @throws DataError "sampler" for options that make no sense
 */
export class PackedSampler implements Iterable<number[][]> {
  /** Examples. */
  readonly length: number;
  readonly packLength: number;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly epoch: number;
  readonly #lengths: ArrayLike<number>;
  #packed: number[][] | undefined;

  constructor({ lengths, packLength, batchSize, shuffle = true, seed = 0, epoch = 0 }: PackedSamplerOptions) {
    const problems: string[] = [];
    for (const [name, value] of Object.entries({ packLength, batchSize }))
      if (!Number.isInteger(value) || value < 1)
        problems.push(`${name} must be a positive integer, got ${value}`);
    if (!Number.isSafeInteger(seed)) problems.push(`seed must be an integer, got ${seed}`);
    if (!Number.isInteger(epoch) || epoch < 0) problems.push(`epoch must be a count from 0, got ${epoch}`);
    if (problems.length > 0)
      throw new DataError(`PackedSampler: ${problems.join("; ")}. Correct the options.`, {
        code: "sampler",
        details: { problems },
      });
    this.length = lengths.length;
    this.packLength = packLength;
    this.batchSize = batchSize;
    this.shuffle = shuffle;
    this.seed = seed;
    this.epoch = epoch;
    this.#lengths = lengths;
  }

  /** The rows of this epoch, in order, each with the indices of its examples. */
  get rows(): readonly (readonly number[])[] {
    this.#packed ??= this.shuffle ? this.#shuffledRows() : this.#rowsInOrder();
    return this.#packed;
  }

  /** Batches in this epoch. */
  get batchesPerEpoch(): number {
    return Math.ceil(this.rows.length / this.batchSize);
  }

  /** The same sampler in another epoch. */
  atEpoch(epoch: number): PackedSampler {
    const { packLength, batchSize, shuffle, seed } = this;
    return new PackedSampler({ lengths: this.#lengths, packLength, batchSize, shuffle, seed, epoch });
  }

  /** The rows of one batch. @throws RangeError */
  batch(step: number): number[][] {
    if (!Number.isInteger(step) || step < 0 || step >= this.batchesPerEpoch)
      throw new RangeError(`The epoch has ${this.batchesPerEpoch} batches; there is no batch ${step}.`);
    return this.rows.slice(step * this.batchSize, (step + 1) * this.batchSize).map((row) => [...row]);
  }

  /** The batches of the epoch from `start` on. */
  *batches(start = 0): Generator<number[][]> {
    for (let step = start; step < this.batchesPerEpoch; step++) yield this.batch(step);
  }

  [Symbol.iterator](): Generator<number[][]> {
    return this.batches();
  }

  #shuffledRows(): number[][] {
    const order = permutation(this.length, [this.seed, this.epoch]);
    const rows: number[][] = [];
    for (let start = 0; start < order.length; ) {
      let end = start;
      for (let tokens = 0; end < order.length && tokens < WINDOW * this.packLength; end++)
        tokens += this.#lengths[order[end]!]!;
      rows.push(...packWindow([...order.subarray(start, end)], this.#lengths, this.packLength));
      start = end;
    }
    return [...permutation(rows.length, [this.seed, this.epoch, 1])].map((row) => rows[row]!);
  }

  #rowsInOrder(): number[][] {
    const rows: number[][] = [];
    let room = 0;
    for (let index = 0; index < this.length; index++) {
      const length = this.#lengths[index]!;
      if (length > room) {
        rows.push([]);
        room = this.packLength;
      }
      rows.at(-1)!.push(index);
      room -= length;
    }
    return rows;
  }
}

/** Best fit decreasing. Examples of equal length stay in their order. */
function packWindow(indices: readonly number[], lengths: ArrayLike<number>, packLength: number): number[][] {
  const rows: number[][] = [];
  const byRoom = new Map<number, number[][]>(); // rows by the tokens that still fit
  let mostRoom = 0; // no row has more
  for (const index of indices.toSorted((a, b) => lengths[b]! - lengths[a]!)) {
    const length = lengths[index]!;
    let room = length;
    while (room <= mostRoom && !byRoom.get(room)?.length) room++;
    let row: number[];
    if (room <= mostRoom) row = byRoom.get(room)!.pop()!;
    else {
      mostRoom = Math.min(mostRoom, length - 1); // there was none from `length` on
      room = packLength;
      row = [];
      rows.push(row);
    }
    row.push(index);
    const left = room - length;
    if (left <= 0) continue;
    const alike = byRoom.get(left);
    if (alike) alike.push(row);
    else byRoom.set(left, [row]);
    mostRoom = Math.max(mostRoom, left);
  }
  return rows;
}

/** Share of a batch's places that are padding, over several batches, from 0 to 1. */
export function paddingShare(
  batches: Iterable<BatchIndices>,
  lengths: ArrayLike<number>,
  { padToMultipleOf = 1 }: { padToMultipleOf?: number } = {},
): number {
  let [tokens, places] = [0, 0];
  for (const batch of batches) {
    const rows = batch.map((row) => [row].flat().reduce((sum: number, index) => sum + lengths[index]!, 0));
    tokens += rows.reduce((a, b) => a + b, 0);
    places += rows.length * Math.ceil(Math.max(...rows) / padToMultipleOf) * padToMultipleOf;
  }
  return places === 0 ? 0 : 1 - tokens / places;
}

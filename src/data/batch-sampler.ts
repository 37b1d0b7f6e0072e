import { DataError } from "../errors.ts";
import { permutation } from "../tensor/random.ts";

export type BatchSamplerOptions = {
  /** Examples in the dataset. */
  length: number;
  batchSize: number;
  /** Default true. Without it, batches are consecutive. */
  shuffle?: boolean;
  seed?: number;
  epoch?: number;
  /** Tokens of each example; with them, batches hold examples of similar length. Needs `shuffle`. */
  lengths?: ArrayLike<number>;
  /** Leave out the last batch of an epoch if it is not full. Default false. */
  dropLast?: boolean;
};

/**
 * Which examples make up each batch of an epoch, by seed and epoch alone: nothing else is state, so training resumes
 * at any step with the same batches (`batch(step)`).
 *
 * With `lengths`, as in transformers' LengthGroupedSampler: the shuffled examples are cut into megabatches of m
 * batches, m = min(⌊length / (4·batchSize)⌋, 50) but at least 1; each megabatch is sorted from long to short, and the
 * longest example of all comes first, so that a batch that does not fit into memory fails at once.
 * @throws DataError "sampler" for options that make no sense
 */
export class BatchSampler implements Iterable<number[]> {
  readonly length: number;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly epoch: number;
  readonly dropLast: boolean;
  /** Batches in an epoch. */
  readonly batchesPerEpoch: number;
  readonly #lengths: ArrayLike<number> | undefined;
  #order: Uint32Array | undefined;

  constructor(options: BatchSamplerOptions) {
    const { length, batchSize, shuffle = true, seed = 0, epoch = 0, lengths, dropLast = false } = options;
    const problems: string[] = [];
    if (!Number.isInteger(length) || length < 0) problems.push(`length must be a count, got ${length}`);
    if (!Number.isInteger(batchSize) || batchSize < 1)
      problems.push(`batchSize must be a positive integer, got ${batchSize}`);
    if (!Number.isSafeInteger(seed)) problems.push(`seed must be an integer, got ${seed}`);
    if (!Number.isInteger(epoch) || epoch < 0) problems.push(`epoch must be a count from 0, got ${epoch}`);
    if (lengths !== undefined && lengths.length !== length)
      problems.push(`lengths has ${lengths.length} values for ${length} examples`);
    if (lengths !== undefined && !shuffle)
      problems.push("lengths groups shuffled examples, but shuffle is false");
    if (dropLast && length < batchSize && problems.length === 0)
      problems.push(`dropLast leaves no batch: ${length} examples are fewer than batchSize ${batchSize}`);
    if (problems.length > 0)
      throw new DataError(`BatchSampler: ${problems.join("; ")}. Correct the options.`, {
        code: "sampler",
        details: { problems },
      });
    this.length = length;
    this.batchSize = batchSize;
    this.shuffle = shuffle;
    this.seed = seed;
    this.epoch = epoch;
    this.dropLast = dropLast;
    this.#lengths = lengths;
    this.batchesPerEpoch = dropLast ? Math.floor(length / batchSize) : Math.ceil(length / batchSize);
  }

  /** The same sampler in another epoch. */
  atEpoch(epoch: number): BatchSampler {
    return new BatchSampler({
      length: this.length,
      batchSize: this.batchSize,
      shuffle: this.shuffle,
      seed: this.seed,
      epoch,
      dropLast: this.dropLast,
      ...(this.#lengths !== undefined && { lengths: this.#lengths }),
    });
  }

  /** Indices of the examples of one batch. @throws RangeError */
  batch(step: number): number[] {
    if (!Number.isInteger(step) || step < 0 || step >= this.batchesPerEpoch)
      throw new RangeError(`An epoch has ${this.batchesPerEpoch} batches; there is no batch ${step}.`);
    const [start, end] = [step * this.batchSize, Math.min((step + 1) * this.batchSize, this.length)];
    if (!this.shuffle) return Array.from({ length: end - start }, (_, i) => start + i);
    this.#order ??= this.#lengths === undefined ? this.#shuffled() : this.#grouped(this.#lengths);
    return [...this.#order.subarray(start, end)];
  }

  /** The batches of the epoch from `start` on. */
  *batches(start = 0): Generator<number[]> {
    for (let step = start; step < this.batchesPerEpoch; step++) yield this.batch(step);
  }

  [Symbol.iterator](): Generator<number[]> {
    return this.batches();
  }

  #shuffled(): Uint32Array {
    return permutation(this.length, [this.seed, this.epoch]);
  }

  #grouped(lengths: ArrayLike<number>): Uint32Array {
    const order = this.#shuffled();
    const multiple = Math.min(Math.floor(this.length / (this.batchSize * 4)), 50) || 1;
    const megabatch = multiple * this.batchSize;
    let longest = 0; // position of the first longest example
    for (let start = 0; start < order.length; start += megabatch) {
      // A stable sort, so that examples of equal length stay shuffled.
      const sorted = Array.from(order.subarray(start, start + megabatch)).sort(
        (a, b) => lengths[b]! - lengths[a]!,
      );
      order.set(sorted, start);
      if (lengths[order[start]!]! > lengths[order[longest]!]!) longest = start;
    }
    if (longest > 0) {
      const first = order[0]!;
      order[0] = order[longest]!;
      order[longest] = first;
    }
    return order;
  }
}

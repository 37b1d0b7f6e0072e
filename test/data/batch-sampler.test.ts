import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BatchSampler, type BatchSamplerOptions } from "../../src/data/batch-sampler.ts";
import { mixSeeds, permutation } from "../../src/tensor/random.ts";
import { dataErrorOf } from "./support.ts";

const options = fc
  .record({
    length: fc.integer({ min: 1, max: 300 }),
    batchSize: fc.integer({ min: 1, max: 20 }),
    shuffle: fc.boolean(),
    seed: fc.maxSafeInteger(),
    epoch: fc.nat(1000),
    grouped: fc.boolean(),
    dropLast: fc.boolean(),
    lengthSeed: fc.nat(),
  })
  .filter(({ dropLast, length, batchSize }) => !dropLast || length >= batchSize)
  .map(
    ({ grouped, lengthSeed, ...rest }): BatchSamplerOptions =>
      grouped && rest.shuffle
        ? { ...rest, lengths: permutation(rest.length, [lengthSeed]).map((value) => value % 17) }
        : rest,
  );

describe("BatchSampler", () => {
  test("covers each index once an epoch, in full batches", () => {
    fc.assert(
      fc.property(options, (chosen) => {
        const sampler = new BatchSampler(chosen);
        const batches = [...sampler];
        expect(batches).toHaveLength(sampler.batchesPerEpoch);
        const seen = batches.flat();
        expect(new Set(seen).size).toBe(seen.length);
        for (const index of seen) expect(index >= 0 && index < chosen.length).toBe(true);
        const rest = chosen.length % chosen.batchSize;
        expect(seen.length).toBe(chosen.dropLast ? chosen.length - rest : chosen.length);
        batches.forEach((batch, i) => {
          const last = i === batches.length - 1 && !chosen.dropLast && rest > 0;
          expect(batch).toHaveLength(last ? rest : chosen.batchSize);
        });
      }),
    );
  });

  test("is a function of seed and epoch: resuming at any step gives the same batches", () => {
    fc.assert(
      fc.property(options, fc.nat(), (chosen, at) => {
        const all = [...new BatchSampler({ ...chosen, epoch: 3 })];
        const start = at % all.length;
        const resumed = new BatchSampler(
          JSON.parse(JSON.stringify({ ...chosen, lengths: undefined, epoch: 0 })),
        );
        if (chosen.lengths === undefined)
          expect([...resumed.atEpoch(3).batches(start)]).toEqual(all.slice(start));
        else expect([...new BatchSampler(chosen).atEpoch(3).batches(start)]).toEqual(all.slice(start));
      }),
    );
  });

  test("the order is this one for good, so that old runs resume", () => {
    expect([...new BatchSampler({ length: 10, batchSize: 4, seed: 1 })]).toEqual([
      [5, 9, 0, 8],
      [1, 3, 2, 4],
      [7, 6],
    ]);
    expect([...new BatchSampler({ length: 10, batchSize: 4, seed: 1, epoch: 1 })]).toEqual([
      [7, 8, 0, 3],
      [6, 1, 2, 9],
      [5, 4],
    ]);
  });

  test("epochs and seeds differ", () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++)
      for (let epoch = 0; epoch < 20; epoch++)
        orders.add([...new BatchSampler({ length: 50, batchSize: 50, seed, epoch })].join());
    expect(orders.size).toBe(400);
    expect(mixSeeds([1, 0])).not.toBe(mixSeeds([0, 1]));
    expect(mixSeeds([2 ** 40])).not.toBe(mixSeeds([0]));
  });

  test("shuffles evenly: each index is as likely at each place", () => {
    const counts = Array.from({ length: 5 }, () => new Array<number>(5).fill(0));
    const runs = 5000;
    for (let seed = 0; seed < runs; seed++)
      for (const [place, value] of permutation(5, [seed, 0]).entries()) counts[place]![value]!++;
    // 1000 expected, standard deviation 28.
    for (const row of counts) for (const count of row) expect(Math.abs(count - runs / 5)).toBeLessThan(150);
  });

  test("without shuffle batches are consecutive", () => {
    expect([...new BatchSampler({ length: 5, batchSize: 2, shuffle: false })]).toEqual([[0, 1], [2, 3], [4]]);
  });

  test("groups by length: megabatches are sorted, the longest example comes first, padding shrinks", () => {
    const length = 640;
    const lengths = permutation(length, [9]).map((value) => 1 + (value % 200));
    const padding = (sampler: BatchSampler): number => {
      let sum = 0;
      for (const batch of sampler) {
        const longest = Math.max(...batch.map((i) => lengths[i]!));
        for (const i of batch) sum += longest - lengths[i]!;
      }
      return sum;
    };
    const grouped = new BatchSampler({ length, batchSize: 8, seed: 4, lengths });
    const plain = new BatchSampler({ length, batchSize: 8, seed: 4 });
    expect(lengths[grouped.batch(0)[0]!]).toBe(Math.max(...lengths));
    expect(padding(grouped)).toBeLessThan(padding(plain) * 0.2);
    // 640 / (8 * 4) = 20 batches a megabatch; all but the swapped first are descending.
    const order = [...grouped].flat();
    for (let start = 160; start < length; start += 160) {
      const sorted = order.slice(start + 1, start + 160).map((i) => lengths[i]!);
      expect(sorted).toEqual([...sorted].sort((a, b) => b - a));
    }
  });

  test.each([
    [{ length: 5, batchSize: 0 }, /batchSize must be a positive integer, got 0/],
    [
      { length: -1, batchSize: 1.5 },
      /length must be a count, got -1; batchSize must be a positive integer, got 1.5/,
    ],
    [{ length: 5, batchSize: 1, lengths: [1] }, /lengths has 1 values for 5 examples/],
    [{ length: 1, batchSize: 1, lengths: [1], shuffle: false }, /shuffle is false/],
    [{ length: 3, batchSize: 4, dropLast: true }, /dropLast leaves no batch: 3 examples/],
    [{ length: 3, batchSize: 4, seed: 0.5 }, /seed must be an integer, got 0.5/],
  ])("refuses %j", async (chosen, message) => {
    expect((await dataErrorOf(() => new BatchSampler(chosen))).message).toMatch(message);
  });

  test("a batch beyond the epoch is a RangeError", () => {
    expect(() => new BatchSampler({ length: 3, batchSize: 2 }).batch(2)).toThrow(RangeError);
  });
});

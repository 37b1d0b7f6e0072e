import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BatchSampler } from "../../src/data/batch-sampler.ts";
import { PackedSampler, type PackedSamplerOptions, paddingShare } from "../../src/data/packed-sampler.ts";
import { dataErrorOf } from "./support.ts";

const options = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 300 }),
  packLength: fc.integer({ min: 1, max: 80 }),
  batchSize: fc.integer({ min: 1, max: 9 }),
  shuffle: fc.boolean(),
  seed: fc.maxSafeInteger(),
  epoch: fc.nat(1000),
});

const tokensOf = (row: readonly number[], lengths: ArrayLike<number>): number =>
  row.reduce((sum, index) => sum + lengths[index]!, 0);

/** Lengths as of short texts, 1 to 200, most of them short. */
const manyLengths = Array.from({ length: 2000 }, (_, i) => 1 + Math.floor(199 * ((i * 0.618) % 1) ** 3));

describe("PackedSampler", () => {
  test("has each example once an epoch, in rows that are not too long, in full batches", () => {
    fc.assert(
      fc.property(options, (chosen) => {
        const sampler = new PackedSampler(chosen);
        const { lengths, packLength, batchSize } = chosen;
        const batches = [...sampler];
        expect(batches).toHaveLength(sampler.batchesPerEpoch);
        expect(batches.flat()).toEqual(sampler.rows);
        const indices = batches.flat(2);
        expect(indices.toSorted((a, b) => a - b)).toEqual([...lengths.keys()]);
        for (const row of sampler.rows)
          expect(row.length === 1 || tokensOf(row, lengths) <= packLength).toBe(true);
        for (const batch of batches.slice(0, -1)) expect(batch).toHaveLength(batchSize);
        if (!chosen.shuffle) expect(indices).toEqual([...lengths.keys()]);
      }),
    );
  });

  test("is a function of seed and epoch: resuming at any step gives the same batches", () => {
    fc.assert(
      fc.property(options, fc.nat(), (chosen, at) => {
        const all = [...new PackedSampler(chosen)];
        const start = at % all.length;
        const resumed = new PackedSampler({ ...chosen, epoch: 0 }).atEpoch(chosen.epoch);
        expect([...resumed.batches(start)]).toEqual(all.slice(start));
      }),
    );
  });

  test("the order is this one for good, so that old runs resume", () => {
    const chosen = { lengths: [7, 3, 5, 1, 2, 6, 4, 4], packLength: 8, batchSize: 2, seed: 1 };
    const { rows } = new PackedSampler(chosen);
    expect(rows).toEqual([
      [0, 3],
      [2, 1],
      [6, 7],
      [5, 4],
    ]);
    expect(new PackedSampler(chosen).atEpoch(1).rows).toEqual([
      [0, 3],
      [6, 7],
      [2, 1],
      [5, 4],
    ]);
  });

  test("fits best, from long to short: nothing fits into the room that is left", () => {
    // 9 | 6+4 | 5+5 | 3 would be 4 rows of 10; the 1 goes where it leaves nothing.
    const sampler = new PackedSampler({ lengths: [1, 3, 4, 5, 5, 6, 9], packLength: 10, batchSize: 8 });
    const rows = sampler.rows.map((row) => row.toSorted((a, b) => a - b).join("+"));
    expect(rows.toSorted()).toEqual(["0+6", "1", "2+5", "3+4"]);
  });

  test("leaves next to no padding, and epochs differ in what shares a row", () => {
    const chosen = { lengths: manyLengths, packLength: 200, batchSize: 8, seed: 7 };
    const packed = new PackedSampler(chosen);
    expect(paddingShare(packed, manyLengths)).toBeLessThan(0.03);
    const plain = new BatchSampler({ length: manyLengths.length, batchSize: 8, seed: 7 });
    expect(paddingShare(plain, manyLengths)).toBeGreaterThan(0.5);
    const names = ({ rows }: PackedSampler): string[] => rows.map((row) => row.join());
    const first = new Set(names(packed));
    const again = names(packed.atEpoch(1)).filter((row) => first.has(row));
    expect(again.length).toBeLessThan(0.2 * first.size);
  });

  test("an example longer than a row has one of its own", () => {
    const sampler = new PackedSampler({ lengths: [2, 30, 3], packLength: 8, batchSize: 4, shuffle: false });
    expect(sampler.rows).toEqual([[0], [1], [2]]);
    const { rows } = new PackedSampler({ lengths: [2, 30, 3], packLength: 8, batchSize: 4 });
    expect(rows.map((row) => row.toSorted()).toSorted()).toEqual([[0, 2], [1]]);
  });

  test.each([
    [{ lengths: [1], packLength: 0, batchSize: 1.5 }, /packLength .* got 0; batchSize .* got 1.5/],
    [{ lengths: [1], packLength: 4, batchSize: 1, epoch: -1 }, /epoch must be a count from 0, got -1/],
    [{ lengths: [1], packLength: 4, batchSize: 1, seed: 0.5 }, /seed must be an integer, got 0.5/],
  ] satisfies [PackedSamplerOptions, RegExp][])("refuses %j", async (chosen, message) => {
    expect((await dataErrorOf(() => new PackedSampler(chosen))).message).toMatch(message);
  });

  test("a batch beyond the epoch is a RangeError", () => {
    const sampler = new PackedSampler({ lengths: [1, 1], packLength: 2, batchSize: 2 });
    expect(() => sampler.batch(1)).toThrow(RangeError);
  });
});

test("paddingShare counts what is not a token", () => {
  expect(paddingShare([[0, 1], [2]], [4, 2, 3])).toBeCloseTo(2 / 11);
  expect(paddingShare([[[0, 1], [2]]], [4, 2, 3])).toBeCloseTo(3 / 12);
  expect(paddingShare([[0, 1], [2]], [4, 2, 3], { padToMultipleOf: 4 })).toBeCloseTo(3 / 12);
});

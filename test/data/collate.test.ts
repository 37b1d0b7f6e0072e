import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { collate } from "../../src/data/collate.ts";
import type { Batch, Example } from "../../src/data/types.ts";
import { dataErrorOf } from "./support.ts";

const example = fc
  .array(fc.record({ id: fc.nat(50_000), learned: fc.boolean() }), { minLength: 1, maxLength: 12 })
  .map(
    (tokens): Example => ({
      inputIds: tokens.map((token) => token.id),
      labels: tokens.map((token) => (token.learned ? token.id : -100)),
    }),
  );

const rows = (tensor: Batch["labels"]): number[][] => {
  const [count, width] = tensor.shape as [number, number];
  return Array.from({ length: count }, (_, i) =>
    [...tensor.data.subarray(i * width, (i + 1) * width)].map(Number),
  );
};

describe("collate", () => {
  test("the examples come back by the mask; padding is masked and has no label", () => {
    fc.assert(
      fc.property(
        fc.array(example, { minLength: 1, maxLength: 6 }),
        fc.constantFrom("left" as const, "right" as const),
        fc.integer({ min: 1, max: 8 }),
        (examples, side, padToMultipleOf) => {
          const batch = collate(examples, { padTokenId: 7, side, padToMultipleOf });
          const longest = Math.max(...examples.map((e) => e.inputIds.length));
          const width = batch.inputIds.shape[1]!;
          expect(width % padToMultipleOf).toBe(0);
          expect(width - longest).toBeGreaterThanOrEqual(0);
          expect(width - longest).toBeLessThan(padToMultipleOf);
          const [ids, mask, labels] = [batch.inputIds, batch.attentionMask, batch.labels].map(
            rows,
          ) as number[][][];
          let counted = 0;
          examples.forEach((e, i) => {
            const real = mask![i]!.flatMap((bit, at) => (bit === 1 ? [at] : []));
            expect(real.map((at) => ids![i]![at])).toEqual([...e.inputIds]);
            const expected = e.labels.slice();
            if (real[0]! > 0) expected[0] = -100;
            expect(real.map((at) => labels![i]![at])).toEqual(expected);
            // Padding is on one side only.
            expect(side === "left" ? real.at(-1) : width - 1 - real[0]!).toBe(width - 1);
            mask![i]!.forEach((bit, at) => {
              if (bit === 0) expect([ids![i]![at], labels![i]![at]]).toEqual([7, -100]);
            });
            counted += labels![i]!.slice(1).filter((label) => label !== -100).length;
          });
          expect(batch.labelTokens).toBe(counted);
          expect(batch.tokens).toBe(examples.reduce((sum, e) => sum + e.inputIds.length, 0));
        },
      ),
    );
  });

  test("a known batch", () => {
    const examples = [
      { inputIds: [1, 5, 6], labels: [-100, 5, 6] },
      { inputIds: Int32Array.of(1, 9), labels: [1, 9] },
    ];
    const batch = collate(examples, { padTokenId: 0, padToMultipleOf: 4 });
    expect(rows(batch.inputIds)).toEqual([
      [1, 5, 6, 0],
      [1, 9, 0, 0],
    ]);
    expect(rows(batch.attentionMask)).toEqual([
      [1, 1, 1, 0],
      [1, 1, 0, 0],
    ]);
    expect(rows(batch.labels)).toEqual([
      [-100, 5, 6, -100],
      [1, 9, -100, -100],
    ]);
    expect([batch.tokens, batch.labelTokens]).toEqual([5, 3]);
    expect(rows(collate(examples, { padTokenId: 0, side: "left" }).labels)).toEqual([
      [-100, 5, 6],
      [-100, -100, 9],
    ]);
  });

  test("places say where the examples are, padded on either side, alone or packed", () => {
    fc.assert(
      fc.property(
        fc.array(example, { minLength: 1, maxLength: 8 }),
        fc.constantFrom("left" as const, "right" as const),
        fc.option(fc.array(fc.nat(3), { minLength: 8, maxLength: 8 }), { nil: undefined }),
        fc.integer({ min: 1, max: 4 }),
        (examples, side, groups, padToMultipleOf) => {
          // Packed: those of one group share a row.
          const inGroup = (group: number) => [...examples.keys()].filter((i) => groups![i] === group);
          const rowsOf = groups && [0, 1, 2, 3].map(inGroup).filter(({ length }) => length > 0);
          const options = { padTokenId: 7, side, padToMultipleOf, ...(rowsOf && { rows: rowsOf }) };
          const batch = collate(examples, options);
          const [ids, mask, labels] = [batch.inputIds, batch.attentionMask, batch.labels].map(
            rows,
          ) as number[][][];
          const [segments, positions] = [batch.segments, batch.positionIds].map((own) => own && rows(own));
          const taken = mask!.map((row) => row.map(() => false));
          batch.places.forEach(({ index, row, start, length, labels: count }, i) => {
            expect(index).toBe(i);
            const { inputIds, labels: own } = examples[i]!;
            expect([length, count]).toEqual([inputIds.length, own.length]);
            expect(ids![row]!.slice(start, start + length)).toEqual(inputIds);
            expect(labels![row]!.slice(start, start + length)).toEqual(
              start === 0 ? own : [-100, ...own.slice(1)],
            );
            for (let at = start; at < start + length; at++) {
              expect(taken[row]![at]).toBe(false);
              taken[row]![at] = true;
              if (!segments) continue;
              expect(positions![row]![at]).toBe(at - start);
              expect(segments[row]![at]).toBe(rowsOf![row]!.indexOf(i) + 1);
            }
          });
          // What is not an example's is padding.
          expect(taken).toEqual(mask!.map((row) => row.map((bit) => bit === 1)));
          expect(segments !== undefined).toBe(rowsOf !== undefined);
          segments?.forEach((row, r) => {
            row.forEach((segment, at) => void expect(segment > 0).toBe(mask![r]![at] === 1));
          });
          const alone = examples.map((one) => collate([one], { padTokenId: 7 }).labelTokens);
          expect(batch.labelTokens).toBe(alone.reduce((a, b) => a + b));
        },
      ),
    );
  });

  test("a known packed batch", () => {
    const examples = [
      { inputIds: [1, 5, 6], labels: [1, 5, 6] },
      { inputIds: [2, 7, 7, 7], labels: [2, 7, 7, 7] },
      { inputIds: [3, 8], labels: [3, 8] },
    ];
    const batch = collate(examples, { padTokenId: 0, rows: [[1], [2, 0]] });
    expect(rows(batch.inputIds)).toEqual([
      [2, 7, 7, 7, 0],
      [3, 8, 1, 5, 6],
    ]);
    expect(rows(batch.labels)).toEqual([
      [2, 7, 7, 7, -100],
      [3, 8, -100, 5, 6],
    ]);
    expect(rows(batch.segments!)).toEqual([
      [1, 1, 1, 1, 0],
      [1, 1, 2, 2, 2],
    ]);
    expect(rows(batch.positionIds!)).toEqual([
      [0, 1, 2, 3, 0],
      [0, 1, 0, 1, 2],
    ]);
    expect(batch.places).toEqual([
      { index: 0, row: 1, start: 2, length: 3, labels: 3 },
      { index: 1, row: 0, start: 0, length: 4, labels: 4 },
      { index: 2, row: 1, start: 0, length: 2, labels: 2 },
    ]);
  });

  test.each([
    [[], { padTokenId: 0 }, /no examples/],
    [[{ inputIds: [1], labels: [1] }], { padTokenId: 0, rows: [[0], [0]] }, /rows must have each of the 1/],
    [[{ inputIds: [1], labels: [1] }], { padTokenId: 0, rows: [[0], []] }, /none may be empty/],
    [
      [{ inputIds: [1], labels: [1] }],
      { padTokenId: 0, rows: [[0]], labels: "decoder" as const },
      /a decoder's labels have a row each/,
    ],
    [
      [{ inputIds: [], labels: [], file: "a.jsonl", line: 3 }],
      { padTokenId: 0 },
      /example 0 \(a\.jsonl:3\) has no tokens/,
    ],
    [[{ inputIds: [1, 2], labels: [1] }], { padTokenId: 0 }, /1 labels for 2 tokens/],
    [[{ inputIds: [1], labels: [1] }], { padTokenId: -1 }, /padTokenId must be a token id, got -1/],
    [[{ inputIds: [1], labels: [1] }], { padTokenId: 0, padToMultipleOf: 0 }, /padToMultipleOf/],
  ])("refuses %j with %j", async (examples, options, message) => {
    expect((await dataErrorOf(() => collate(examples, options))).message).toMatch(message);
  });
});

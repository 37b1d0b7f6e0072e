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

  test.each([
    [[], { padTokenId: 0 }, /no examples/],
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

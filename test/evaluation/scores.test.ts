import fc from "fast-check";
import { expect, test } from "vitest";
import { scoreTexts } from "../../src/evaluation/index.ts";

const score = (generated: string, reference: string) => scoreTexts([{ generated, reference }]);

test("the example of Python's rouge_score gives its numbers", () => {
  const { rouge1, rouge2, rougeL } = score(
    "The quick brown dog jumps on the log.",
    "The quick brown fox jumps over the lazy dog",
  );
  const f1 = (precision: number, recall: number): number => (2 * precision * recall) / (precision + recall);
  expect(rouge1).toBeCloseTo(f1(6 / 8, 6 / 9), 12); // the, quick, brown, dog, jumps, the
  expect(rouge2).toBeCloseTo(f1(2 / 7, 2 / 8), 12); // the quick, quick brown
  expect(rougeL).toBeCloseTo(f1(5 / 8, 5 / 9), 12); // the quick brown jumps the
});

test("case and punctuation do not count for ROUGE, and do for an exact match", () => {
  expect(score("Grinning face!", "grinning face")).toMatchObject({ exactMatch: 0, rouge1: 1, rougeL: 1 });
  expect(score(" grinning face\n", "grinning face")).toMatchObject({ exactMatch: 1, rouge1: 1 });
});

test("texts without words score 0, unless they are equal", () => {
  expect(score("", "face")).toMatchObject({ exactMatch: 0, rouge1: 0, rouge2: 0, rougeL: 0 });
  expect(score("face", "…")).toMatchObject({ exactMatch: 0, rouge1: 0, rougeL: 0 });
});

test("words of other scripts count", () => {
  expect(score("лицо улыбка", "улыбка лицо")).toMatchObject({ rouge1: 1, rougeL: 0.5 });
});

test("scores are means, lie between 0 and 1, and do not change if both texts change places", () => {
  const words = fc.array(fc.constantFrom("a", "b", "c", "d"), { maxLength: 8 }).map((list) => list.join(" "));
  fc.assert(
    fc.property(fc.array(fc.tuple(words, words), { minLength: 1, maxLength: 5 }), (texts) => {
      const all = scoreTexts(texts.map(([generated, reference]) => ({ generated, reference })));
      expect(all.texts).toBe(texts.length);
      for (const key of ["exactMatch", "rouge1", "rouge2", "rougeL"] as const) {
        const each = texts.map(([generated, reference]) => score(generated, reference)[key]);
        expect(all[key]).toBeCloseTo(each.reduce((sum, value) => sum + value, 0) / texts.length, 9);
        for (const [i, value] of each.entries()) {
          expect(value).toBeGreaterThanOrEqual(0);
          expect(value).toBeLessThanOrEqual(1);
          expect(value).toBeCloseTo(score(texts[i]![1], texts[i]![0])[key], 9);
        }
      }
    }),
  );
});

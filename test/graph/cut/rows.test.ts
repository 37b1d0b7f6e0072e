import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GraphError } from "../../../src/errors.ts";
import { rowsOf } from "../../../src/graph/cut/kept-rows.ts";
import {
  dimMultiply,
  joinKept,
  type KeptRows,
  type Shape,
  spansInRows,
  spansOfCounts,
  splitKept,
  symbol,
} from "../../../src/graph/index.ts";
import { type Tensor, tensor } from "../../../src/tensor/index.ts";

const [batch, images, sequence, source] = ["batch", "images", "sequence", "source"].map(symbol);
const flat = dimMultiply(batch!, sequence!);

test.each<[string, Shape, KeptRows | undefined]>([
  ["hidden states", [batch!, sequence!, 8], token("sequence", false, [8])],
  ["heads", [batch!, source!, 2, 4], token("source", false, [2, 4])],
  ["a number per token", [batch!, sequence!], token("sequence", false, [])],
  ["rows of tokens", [flat, 8], token("sequence", true, [8])],
  ["pictures", [images!, 3, 5, 5], { kind: "example", batch: "images", shape: [3, 5, 5] }],
  ["rows of pictures", [dimMultiply(images!, 7), 4], { kind: "example", batch: "images", shape: [7, 4] }],
  ["a number per example", [batch!], { kind: "example", batch: "batch", shape: [] }],
  ["heads in front of tokens", [batch!, 2, sequence!, 4], undefined],
  ["scores", [batch!, sequence!, sequence!], undefined],
  ["tokens in front", [sequence!, batch!, 4], undefined],
  ["labels", [symbol("labels"), 4], undefined],
  ["a weight", [8, 4], undefined],
  ["three symbols", [dimMultiply(flat, source!), 4], undefined],
  ["twice the tokens", [dimMultiply(flat, 2), 4], undefined],
  ["a number", [], undefined],
])("%s", (_, shape, expected) => {
  expect(rowsOf(shape, ["batch", "images"])).toEqual(expected);
});

function token(length: string, isFlat: boolean, shape: readonly number[]): KeptRows {
  return { kind: "token", batch: "batch", sequence: length, flat: isFlat, shape };
}

describe("where examples lie", () => {
  test("in rows, one each or several", () => {
    const places = [
      { row: 0, start: 1, length: 3 },
      { row: 2, start: 0, length: 2 },
      { row: 2, start: 2, length: 2 },
    ];
    expect(spansInRows(places, 4)).toEqual([
      { start: 1, length: 3 },
      { start: 8, length: 2 },
      { start: 10, length: 2 },
    ]);
  });

  test("pictures one after the other", () => {
    expect(spansOfCounts([1, 0, 2])).toEqual([
      { start: 0, length: 1 },
      { start: 1, length: 0 },
      { start: 1, length: 2 },
    ]);
  });
});

const rows: KeptRows = { kind: "token", batch: "batch", sequence: "sequence", flat: true, shape: [2, 3] };

test("what is split from batches joins into others: the same numbers at real tokens, zeros at padding", () => {
  const lengths = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 4 });
  const side = fc.constantFrom("left", "right");
  fc.assert(
    fc.property(lengths, side, side, fc.integer({ min: 4, max: 6 }), (counts, from, to, width) => {
      const spans = (on: string, padded: number) =>
        counts.map((length, row) => ({
          start: row * padded + (on === "left" ? padded - length : 0),
          length,
        }));
      const batchSize = counts.length;
      const value = tensor(
        "float32",
        [batchSize, 4, 2, 3],
        Float32Array.from({ length: batchSize * 24 }, (_, i) => i + 1),
      );
      const parts = splitKept(rows, value, spans(from, 4));
      expect(parts.map(({ shape }) => shape)).toEqual(counts.map((length) => [length, 2, 3]));
      const joined = joinKept(rows, parts, { leading: [batchSize, width], spans: spans(to, width) });
      expect(joined.shape).toEqual([batchSize, width, 2, 3]);
      expect(splitKept(rows, joined, spans(to, width))).toEqual(parts);
      const real = counts.reduce((a, b) => a + b) * 6;
      expect(joined.data.filter((x) => x !== 0).length).toBe(real);
    }),
  );
});

test("parts are copies: a batch's numbers are not held by what is kept of one example", () => {
  const value = tensor("float32", [2, 3], new Float32Array(6));
  const [part] = splitKept({ kind: "example", batch: "batch", shape: [3] }, value, spansOfCounts([1, 1]));
  expect(part!.data.buffer.byteLength).toBe(12);
});

test.each<[string, () => unknown]>([
  ["a span outside", () => splitKept(rows, value([2, 2, 2, 3]), [{ start: 3, length: 2 }])],
  ["other rows", () => splitKept(rows, value([2, 2, 3, 2]), [])],
  ["no sequence", () => splitKept(rows, value([4, 2, 3]), [])],
  ["another length", () => joinKept(rows, [value([3, 2, 3])], place(2))],
  ["another shape", () => joinKept(rows, [value([2, 3])], place(2))],
  ["too few examples", () => joinKept(rows, [], place(2))],
  ["a place outside", () => joinKept(rows, [value([5, 2, 3])], place(5))],
])("%s is refused", (_, call) => {
  expect(call).toThrow(GraphError);
  expect(call).toThrow(/Split and join with the spans of the batch at hand/);
});

const place = (length: number) => ({ leading: [1, 4], spans: [{ start: 0, length }] });
function value(shape: readonly number[]): Tensor<"float32"> {
  return tensor("float32", shape, new Float32Array(shape.reduce((a, b) => a * b)));
}

import { GraphError } from "../../errors.ts";
import { numel, type Tensor, tensor, zeros } from "../../tensor/index.ts";
import type { KeptRows } from "./kept-rows.ts";

/**
 * Where an example's rows lie among those of a batch, one after the other: its tokens in [batch · sequence], padding included,
 * or its pictures in [images].
 */
export type Span = { readonly start: number; readonly length: number };

/**
 * Spans of examples that lie in rows of a padded length: `start` is the column of an example's first token, `length` how many it has.
 * Of a decoder's tokens, which follow its labels, the column is 0 and the length that of the labels.
 */
export const spansInRows = (places: readonly (Span & { readonly row: number })[], width: number): Span[] =>
  places.map(({ row, start, length }) => ({ start: row * width + start, length }));

/** Spans of examples that have so many rows each: [1, 1, …] for what there is one of. */
export function spansOfCounts(counts: readonly number[]): Span[] {
  let end = 0;
  return counts.map((length) => {
    const start = end;
    end += length;
    return { start, length };
  });
}

/**
 * Each example's part of a batch's kept value, [rows of the span, F…], copied.
 * Shape of `value`: [batch, sequence, F…] or [batch, F…], as the prefix graph returns it.
 * @throws GraphError if the shape does not fit the rows, or a span lies outside.
 */
export function splitKept(
  rows: KeptRows,
  value: Tensor<"float32">,
  spans: readonly Span[],
): Tensor<"float32">[] {
  const { leading, width } = layoutOf(rows, value.shape);
  return spans.map((span) => {
    requireWithin(span, leading);
    const { start, length } = span;
    return tensor(
      "float32",
      [length, ...rows.shape],
      value.data.slice(start * width, (start + length) * width),
    );
  });
}

/**
 * A batch's value from its examples' parts, zero at padding: what the suffix graph is fed.
 * `leading`: [batch, sequence] for rows of tokens, else [batch]. The examples may come from batches of other lengths, padded
 * on the other side.
 * @throws GraphError if an example has other rows than its span, or a span lies outside.
 */
export function joinKept(
  rows: KeptRows,
  examples: readonly Tensor<"float32">[],
  { leading, spans }: { leading: readonly number[]; spans: readonly Span[] },
): Tensor<"float32"> {
  const joined = zeros("float32", [...leading, ...rows.shape]);
  const { leading: count, width } = layoutOf(rows, joined.shape);
  if (examples.length !== spans.length)
    throw mismatch(`There are ${examples.length} examples for ${spans.length} places in the batch.`);
  for (const [i, { shape, data }] of examples.entries()) {
    const span = spans[i]!;
    requireWithin(span, count);
    const expected = [span.length, ...rows.shape];
    if (shape.length !== expected.length || shape.some((dim, axis) => dim !== expected[axis]))
      throw mismatch(
        `What was kept of example ${i} of the batch has shape [${shape}], but its place there needs [${expected}].`,
      );
    joined.data.set(data, span.start * width);
  }
  return joined;
}

/** Number of rows of a batch's value, and of elements in each. */
function layoutOf(rows: KeptRows, shape: readonly number[]): { leading: number; width: number } {
  const axes = rows.kind === "token" ? 2 : 1;
  if (shape.length !== axes + rows.shape.length || rows.shape.some((dim, axis) => dim !== shape[axes + axis]))
    throw mismatch(
      `A value of shape [${shape}] does not consist of rows [${rows.shape}] behind ${axes === 2 ? "[batch, sequence]" : "[batch]"}.`,
    );
  return { leading: numel(shape.slice(0, axes)), width: numel(rows.shape) };
}

function requireWithin({ start, length }: Span, count: number): void {
  if (start < 0 || length < 0 || start + length > count)
    throw mismatch(`Rows ${start} to ${start + length} are not among the ${count} rows of the batch.`);
}

const mismatch = (message: string): GraphError =>
  new GraphError(`${message} Split and join with the spans of the batch at hand.`, { code: "kept-rows" });

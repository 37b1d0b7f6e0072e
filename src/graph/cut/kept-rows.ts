import { type Dim, dimDivide, dividedSymbol, type Shape, SymbolicDim, symbol, symbolName } from "../dim.ts";

/** How an example's part lies in a batch's value: one row per example, or one row per token of a padded sequence. */
export type KeptRows =
  | {
      readonly kind: "example";
      /** Symbol that counts the rows: examples, or their pictures. */
      readonly batch: string;
      /** Of one row. */
      readonly shape: readonly number[];
    }
  | {
      readonly kind: "token";
      readonly batch: string;
      /** Symbol of the padded length. */
      readonly sequence: string;
      /** [batch · sequence, …] rather than [batch, sequence, …]. */
      readonly flat: boolean;
      /** Of one token. */
      readonly shape: readonly number[];
    };

/**
 * The rows of a value of this shape, undefined where an example's part cannot be cut out. `batchSymbols` count examples, or
 * what belongs to one example each. Rows are
 * [batch, sequence, F…], [batch · sequence, F…], [batch, F…], or [batch · k, F…] with k rows F… for each.
 */
export function rowsOf(shape: Shape, batchSymbols: readonly string[]): KeptRows | undefined {
  const [first, second, ...others] = shape;
  if (first === undefined || typeof first === "number") return undefined;
  const batch = batchSymbols.find((name) => dimDivide(first, symbol(name)) !== undefined);
  if (batch === undefined) return undefined;
  const rest = dimDivide(first, symbol(batch))!;
  const sequence = lengthName(rest);
  if (typeof rest === "number") {
    const inner = rest === 1 ? shape.slice(1) : [rest, ...shape.slice(1)];
    if (isFixed(inner)) return { kind: "example", batch, shape: inner };
    const length = rest === 1 && second !== undefined ? lengthName(second) : undefined;
    if (length === undefined || !isFixed(others)) return undefined;
    return { kind: "token", batch, sequence: length, flat: false, shape: others };
  }
  const inner = shape.slice(1);
  return sequence === undefined || !isFixed(inner)
    ? undefined
    : { kind: "token", batch, sequence, flat: true, shape: inner };
}

/** The symbol of a whole length; parts of a sequence are not kept. */
function lengthName(dim: Dim): string | undefined {
  const name = symbolName(dim);
  return name !== undefined && dividedSymbol(name) ? undefined : name;
}

const isFixed = (shape: Shape): shape is readonly number[] =>
  shape.every((dim) => !(dim instanceof SymbolicDim));

/** Shape in which a kept value is computed and fed: [batch, sequence, F…] or [batch, F…]. */
export const fedShape = (rows: KeptRows): Shape => [
  symbol(rows.batch),
  ...(rows.kind === "token" ? [symbol(rows.sequence)] : []),
  ...rows.shape,
];

import { GraphError } from "../../errors.ts";
import { chooseKept, FLOPS_PER_BYTE, MIN_SAVED_SHARE } from "../../keeping/choose-kept.ts";
import { reshape } from "../ops/build.ts";
import { substitute } from "../substitute.ts";
import { nodesOf, operandsOf, reachable } from "../traverse.ts";
import { input, type Value } from "../value.ts";
import { requireBoundSymbols } from "./bound-symbols.ts";
import { elementsOf, flopsOf, type Sizes } from "./flops.ts";
import { fedShape, type KeptRows, rowsOf } from "./kept-rows.ts";
import { originalsOf } from "./originals.ts";

/** A value kept for every example. */
export type Kept = {
  /** "kept.0", "kept.1", … (see `CutOptions.called`), in the order in which they are computed. */
  readonly name: string;
  /** In the graph that was cut. */
  readonly value: Value;
  readonly rows: KeptRows;
};

/** A graph cut into what is computed once for each example, and what is computed from that in every epoch. */
export type Cut = {
  readonly kept: readonly Kept[];
  /** The kept values by name, each [batch, sequence, F…] or [batch, F…]: the graph that is run once. */
  readonly prefix: Record<string, Value>;
  /** What was given, computed from inputs that are called as the kept values are and have the same shapes. */
  readonly outputs: Record<string, Value>;
  /** FLOPs per example: of the graph that was cut, and what of them is saved when values are kept. */
  readonly totalFlops: number;
  readonly savedFlops: number;
  /** Bytes of an example's kept values, for the sizes of symbols; `batch` examples have `images` pictures. */
  readonly bytesPerExample: (sizes: Readonly<Record<string, number>>) => number;
};

export type CutOptions = {
  /**
   * Inputs, or their names, that are not the same function of the example in every epoch: random bits, say. Inputs whose shape has
   * no symbol are no function of an example (`loss_scale`, trained parameters) and vary too, but for those in `fixed`.
   */
  readonly varying: readonly (Value | string)[];
  /** Names of fed parameters that stay as they are. */
  readonly fixed?: readonly string[];
  /**
   * Names of inputs that say how a batch is laid out rather than what it holds: masks, positions, places of labels. What follows from
   * nothing but these and weights may be otherwise for the same example in another batch, and is never kept.
   */
  readonly layout?: readonly string[];
  /** Typical sizes of all symbols, for the costs. */
  readonly sizes: Readonly<Record<string, number>>;
  /**
   * What keeping one byte of an example costs, in FLOPs that could be computed instead. Default `FLOPS_PER_BYTE`.
   */
  readonly flopsPerByte?: number;
  /** Save at least this share of the FLOPs, or keep nothing. Default `MIN_SAVED_SHARE`. */
  readonly minSavedShare?: number;
  /** What kept values are called, with a number behind it. Default "kept". */
  readonly called?: string;
  /** Symbols that count examples, or what belongs to an example each; the first counts examples. Default: batch, images. */
  readonly batchSymbols?: readonly string[];
};

/**
 * Chooses which frozen values to keep for each example, so that later epochs compute only what follows from them.
 *
 * A value is frozen if it depends on no input that varies. Each frozen value v that is needed behind the cut is either kept, for
 * bytes(v) · flopsPerByte, or computed again, for its FLOPs, and then what it is computed from is needed as well. The cheapest choice
 * is a minimum cut, see `chooseKept`; needed are frozen values that an output or a value that is not frozen reads. Copies for the backward pass are
 * not kept besides their originals.
 *
 * Kept are float32 values that fall into rows of examples or tokens (see `rowsOf`) and depend on what the examples hold. What
 * stands at padding is not kept: it is fed as zeros, so nothing that the outputs read may depend on it. Nor may it matter where in
 * its row an example lies: with positions that are learned and padding on the left it does, with rotary ones it does not.
 * @returns undefined where nothing is worth keeping.
 * @throws GraphError for an input called as a kept value is, a symbol without a size, or one that no input has after the cut.
 */
export function cutFrozen(
  outputs: Readonly<Record<string, Value>>,
  { flopsPerByte = FLOPS_PER_BYTE, minSavedShare = MIN_SAVED_SHARE, ...options }: CutOptions,
): Cut | undefined {
  const { batchSymbols = ["batch", "images"], called = "kept" } = options;
  const sizes: Sizes = new Map(Object.entries(options.sizes));
  const values = reachable(Object.values(outputs));
  const kinds = classify(values, options);
  const rowsOfValue = (value: Value): KeptRows | undefined =>
    kinds.ofContent.has(value) && value.source.kind === "node" && value.dtype === "float32"
      ? rowsOf(value.shape, batchSymbols)
      : undefined;
  // What is fed, or in the graph, costs nothing.
  const originals = originalsOf(
    values.filter((value) => kinds.frozen.has(value) && value.source.kind === "node"),
  );
  const originalOf = (value: Value): Value => originals.get(value) ?? value;
  const needed = new Set(Object.values(outputs).map(originalOf));
  for (const value of values)
    if (!kinds.frozen.has(value)) for (const x of operandsOf(value)) needed.add(originalOf(x));
  const copies = new Map<Value, number>();
  for (const original of originals.values()) copies.set(original, (copies.get(original) ?? 0) + 1);
  const chosen = chooseKept(copies.keys(), {
    operandsOf: (value) => operandsOf(value).map(originalOf),
    isNeeded: (value) => needed.has(value),
    makeCost: (value) =>
      value.source.kind !== "node" || kinds.constant.has(value)
        ? 0
        : copies.get(value)! * flopsOf(value.source.node, sizes),
    keepCost: (value) =>
      rowsOfValue(value) ? 4 * elementsOf(value, sizes) * flopsPerByte : Number.POSITIVE_INFINITY,
  });
  if (chosen.length === 0) return undefined;

  const kept = chosen.map((value, i): Kept => ({ name: `${called}.${i}`, value, rows: rowsOfValue(value)! }));
  for (const { source } of values)
    if (source.kind === "input" && kept.some(({ name }) => name === source.name))
      throw new GraphError(`An input is called "${source.name}", as a kept value would be; rename it.`, {
        code: "duplicate-input",
        details: { name: source.name },
      });
  const fed = new Map(
    kept.map(({ name, value, rows }) => [
      value,
      reshape(input(name, "float32", fedShape(rows)), value.shape),
    ]),
  );
  const suffix = substitute(
    outputs,
    new Map(
      [...originals].flatMap(([value, original]) => {
        const instead = fed.get(original);
        return instead ? [[value, instead] as const] : [];
      }),
    ),
  );
  const flops = (of: Readonly<Record<string, Value>>): number =>
    nodesOf(Object.values(of)).reduce(
      (sum, node) => sum + (kinds.constant.has(node.outputs[0]!) ? 0 : flopsOf(node, sizes)),
      0,
    );
  const [total, left] = [flops(outputs), flops(suffix)];
  if (total - left < minSavedShare * total) return undefined;

  const prefix = Object.fromEntries(
    kept.map(({ name, value, rows }) => [name, reshape(value, fedShape(rows))]),
  );
  requireBoundSymbols(prefix, "The graph of what is kept");
  requireBoundSymbols(suffix, "The graph behind what is kept");
  const examplesOf = (of: Sizes): number => of.get(batchSymbols[0]!) ?? 1;
  return {
    kept,
    prefix,
    outputs: suffix,
    totalFlops: total / examplesOf(sizes),
    savedFlops: (total - left) / examplesOf(sizes),
    bytesPerExample: (given) => {
      const of = new Map(Object.entries(given));
      return kept.reduce((sum, { value }) => sum + 4 * elementsOf(value, of), 0) / examplesOf(of);
    },
  };
}

type Kinds = {
  /** Depends on nothing that varies. */
  readonly frozen: ReadonlySet<Value>;
  /** Frozen and depends on what the examples hold. */
  readonly ofContent: ReadonlySet<Value>;
  /** Known before the graph runs: ONNX Runtime computes it once, when it loads the graph. */
  readonly constant: ReadonlySet<Value>;
};

function classify(
  values: readonly Value[],
  { varying, fixed = [], layout = [] }: Pick<CutOptions, "varying" | "fixed" | "layout">,
): Kinds {
  const [frozen, ofContent, constant] = [new Set<Value>(), new Set<Value>(), new Set<Value>()];
  for (const value of values) {
    const { source } = value;
    if (source.kind === "input") {
      const isFixed = fixed.includes(source.name);
      const ofExamples = value.shape.some((dim) => typeof dim !== "number");
      if (varying.includes(value) || varying.includes(source.name) || !(ofExamples || isFixed)) continue;
      frozen.add(value);
      if (!isFixed && !layout.includes(source.name)) ofContent.add(value);
      continue;
    }
    const operands = operandsOf(value);
    if (!operands.every((x) => frozen.has(x))) continue;
    frozen.add(value);
    if (operands.some((x) => ofContent.has(x))) ofContent.add(value);
    const isNumeric = value.shape.every((dim) => typeof dim === "number");
    if (source.kind !== "dim" && isNumeric && operands.every((x) => constant.has(x))) constant.add(value);
  }
  return { frozen, ofContent, constant };
}

import { type Dim, dimEquals, dimMultiply, type Shape } from "./dim.ts";
import * as op from "./ops/build.ts";
import type { OpName } from "./ops/signatures.ts";
import type { Node, Value } from "./value.ts";

/** An operator that computes each row of its result from the same row of its operands, and from what has no rows. */
export type RowWise = {
  /** For each operand whether it has the rows. */
  readonly hasRows: readonly boolean[];
  /** The same for some of the rows: operands with rows are [count, …] with all axes of the rows in one, others as they were. */
  readonly onRows: (operands: readonly (Value | undefined)[], count: Dim) => Value;
};

/** Number of leading axes that together have `rows` elements; undefined if there are no such. */
export function leadingAxes(shape: Shape, rows: Dim): number | undefined {
  let product: Dim = 1;
  for (const [i, dim] of shape.entries()) {
    product = dimMultiply(product, dim);
    if (dimEquals(product, rows)) return i + 1;
  }
  return undefined;
}

const elementwise: ReadonlySet<OpName> = new Set<OpName>([
  "Add",
  "Sub",
  "Mul",
  "Div",
  "Pow",
  "Neg",
  "Sqrt",
  "Exp",
  "Log",
  "Reciprocal",
  "Sigmoid",
  "Tanh",
  "Erf",
  "Relu",
  "Cos",
  "Sin",
  "Identity",
  "Boundary",
  "Abs",
  "Gelu",
  "QuickGelu",
  "Cast",
  "Where",
  "Equal",
  "Less",
  "LessOrEqual",
  "Greater",
  "GreaterOrEqual",
  "And",
  "Or",
  "Not",
]);

const is = <Op extends OpName>(node: Node, name: Op): node is Node<Op> & Node => node.op === name;

/**
 * How a node computes rows on their own, if it does: rows lie along its result's leading axes, which have `rows` elements. Row-wise
 * are elementwise functions, products with a matrix on the right, norms, softmaxes and sums within rows, and whatever moves
 * elements within rows.
 */
export function rowWise(node: Node, rows: Dim): RowWise | undefined {
  const [y] = node.outputs as readonly [Value];
  const lead = leadingAxes(y.shape, rows);
  if (lead === undefined) return undefined;
  const [x] = node.inputs as readonly [Value];
  /** An axis behind the rows' where these are one. */
  const moved = (axis: number): number => axis - lead + 1;
  const first = (onRows: (x: Value, count: Dim) => Value): RowWise => ({
    hasRows: node.inputs.map((_, i) => i === 0),
    onRows: ([a], count) => onRows(a!, count),
  });

  if (elementwise.has(node.op)) return broadcast(node, lead);
  if (is(node, "Gemm")) {
    const [, , c] = node.inputs;
    const ofC = c && rowsInBroadcast(c.shape, y.shape, lead);
    if (lead > 1 || node.attributes.transA || (c && ofC === undefined)) return undefined;
    return {
      hasRows: [true, false, ofC ?? false],
      onRows: ([a, b, rest]) => op.apply("Gemm", [a!, b!, rest], node.attributes),
    };
  }
  if (is(node, "MatMul")) {
    const [a, b] = node.inputs;
    return b.rank === 2 && lead < a.rank ? first((some) => op.matmul(some, b)) : undefined;
  }
  if (is(node, "QuantizedMatMul")) {
    const [, codes, scales] = node.inputs;
    return lead > 1 ? undefined : first((some) => op.quantizedMatMul(some, codes, scales, node.attributes));
  }
  if (is(node, "SimplifiedLayerNormalization") || is(node, "LayerNormalization")) {
    if (lead === y.rank) return undefined;
    const [, ...others] = node.inputs as readonly Value[];
    return first((some) => op.apply(node.op, [some, ...others] as never, node.attributes as never));
  }
  if (is(node, "Softmax")) {
    const { axis } = node.attributes;
    return axis < lead ? undefined : first((some) => op.softmax(some, moved(axis)));
  }
  if (
    is(node, "ReduceSum") ||
    is(node, "ReduceMean") ||
    is(node, "ReduceMax") ||
    is(node, "ReduceLogSumExp")
  ) {
    const { axes, keepdims } = node.attributes;
    if (axes.some((axis) => axis < lead)) return undefined;
    return first((some) => op.apply(node.op, [some], { axes: axes.map(moved), keepdims }));
  }
  if (is(node, "Reshape"))
    return leadingAxes(x.shape, rows) === undefined
      ? undefined
      : first((some, count) => op.reshape(some, [count, ...y.shape.slice(lead)]));
  if (is(node, "Transpose")) {
    const { perm } = node.attributes;
    if (perm.some((axis, i) => i < lead && axis !== i)) return undefined;
    return first((some) => op.transpose(some, [0, ...perm.slice(lead).map(moved)]));
  }
  if (is(node, "Expand"))
    return rowsInBroadcast(x.shape, y.shape, lead)
      ? first((some, count) => op.expand(some, [count, ...y.shape.slice(lead)]))
      : undefined;
  if (is(node, "Slice")) {
    const { axis, start, end } = node.attributes;
    return axis < lead ? undefined : first((some) => op.slice(some, moved(axis), start, end));
  }
  if (is(node, "Pad")) {
    const { axis, before, after } = node.attributes;
    return axis < lead ? undefined : first((some) => op.pad(some, moved(axis), before, after));
  }
  if (is(node, "Concat")) {
    const { axis } = node.attributes;
    if (axis < lead) return undefined;
    return {
      hasRows: node.inputs.map(() => true),
      onRows: (operands) => op.concat(operands as readonly Value[], moved(axis)),
    };
  }
  return undefined;
}

/** Whether an operand that is broadcast to `shape` has its rows; undefined if it has a part of the rows' axes alone. */
function rowsInBroadcast(operand: Shape, shape: Shape, lead: number): boolean | undefined {
  const missing = shape.length - operand.length;
  const along = operand.slice(0, Math.max(lead - missing, 0));
  if (along.every((dim) => dim === 1)) return false;
  return missing === 0 && along.every((dim, i) => dimEquals(dim, shape[i]!)) ? true : undefined;
}

function broadcast(node: Node, lead: number): RowWise | undefined {
  const [y] = node.outputs as readonly [Value];
  const inputs = node.inputs as readonly Value[];
  const hasRows = inputs.map((x) => rowsInBroadcast(x.shape, y.shape, lead));
  if (hasRows.includes(undefined) || !hasRows.includes(true)) return undefined;
  const rank = y.rank - lead + 1;
  return {
    hasRows: hasRows as boolean[],
    onRows(operands) {
      // Of an operand without rows, axes of size 1 in front are left out until it fits.
      const fitting = (operands as readonly Value[]).map((x, i) =>
        hasRows[i] ? x : op.reshape(x, x.shape.slice(Math.max(x.rank - rank, 0))),
      );
      return op.apply(node.op, fitting as never, node.attributes as never);
    },
  };
}

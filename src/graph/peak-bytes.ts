import { byteSize } from "../tensor/index.ts";
import { elementsOf, type Sizes } from "./cut/flops.ts";
import type { OpName } from "./ops/signatures.ts";
import { operandsOf, reachable } from "./traverse.ts";
import type { Value } from "./value.ts";

/** Operators whose result is their first operand's memory. */
const views: ReadonlySet<OpName> = new Set<OpName>(["Reshape", "After", "Boundary", "Identity"]);

/** Operators that write over an operand that nothing reads any more. */
const inPlace: ReadonlySet<OpName> = new Set<OpName>([
  ...(["Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Exp", "Log", "Reciprocal", "Sigmoid", "Tanh"] as const),
  ...(["Erf", "Relu", "Abs", "Softmax", "ScatterElements", "ScatterND"] as const),
]);

/**
 * Bytes that a graph's values take at the same time, at most, when an engine runs it: inputs, constants, and what follows from constants
 * alone, are not counted. An engine computes what nothing else uses one after the other, each with all that it depends on, and of a
 * node's operands the last one of the graph first (ONNX Runtime: Graph::ReverseDFSFrom).
 * @throws GraphError for a symbol without a size.
 */
export function peakBytes(
  outputs: Readonly<Record<string, Value>>,
  sizes: Readonly<Record<string, number>>,
): number {
  const known: Sizes = new Map(Object.entries(sizes));
  const values = reachable(Object.values(outputs));
  const isFed = new Set<Value>();
  for (const value of values)
    if (value.source.kind === "input" || operandsOf(value).some((x) => isFed.has(x))) isFed.add(value);
  const isCounted = (value: Value): boolean => value.source.kind === "node" && isFed.has(value);

  /** What holds a value, and how many are still to read it. */
  const bufferOf = new Map<Value, Value>();
  const readers = new Map<Value, number>();
  for (const value of values) {
    const [x] = operandsOf(value);
    const isView = value.source.kind === "node" && views.has(value.source.node.op);
    bufferOf.set(value, isView ? bufferOf.get(x!)! : value);
    for (const operand of operandsOf(value)) {
      const buffer = bufferOf.get(operand)!;
      readers.set(buffer, (readers.get(buffer) ?? 0) + 1);
    }
  }
  for (const value of Object.values(outputs)) readers.set(bufferOf.get(value)!, Infinity);
  const bytesOf = (value: Value): number =>
    isCounted(value) ? byteSize(value.dtype) * elementsOf(value, known) : 0;

  let now = 0;
  let peak = 0;
  for (const value of orderOf(values)) {
    if (!isCounted(value)) continue;
    const own = bufferOf.get(value) === value;
    const operands = operandsOf(value).map((x) => bufferOf.get(x)!);
    const left = new Map<Value, number>();
    for (const buffer of operands) left.set(buffer, (left.get(buffer) ?? readers.get(buffer)!) - 1);
    const bytes = own ? bytesOf(value) : 0;
    const isReused =
      inPlace.has((value.source as { node: { op: OpName } }).node.op) &&
      operands.some((buffer) => left.get(buffer) === 0 && bytesOf(buffer) === bytes);
    peak = Math.max(peak, now + (isReused ? 0 : bytes));
    now += bytes;
    for (const [buffer, count] of left) {
      readers.set(buffer, count);
      if (count === 0) now -= bytesOf(buffer);
    }
  }
  return peak;
}

/** Values in the order in which they are computed; see `emit` for that of the ends. */
function orderOf(values: readonly Value[]): Value[] {
  const used = new Set(values.flatMap(operandsOf));
  const ends = values.filter((value) => !used.has(value));
  const seen = new Set<Value>();
  const order: Value[] = [];
  for (const end of ends) {
    const stack: { value: Value; isDone: boolean }[] = [{ value: end, isDone: false }];
    for (let top = stack.pop(); top; top = stack.pop()) {
      const { value, isDone } = top;
      if (isDone) order.push(value);
      if (isDone || seen.has(value)) continue;
      seen.add(value);
      stack.push({ value, isDone: true });
      const operands = operandsOf(value).toSorted((a, b) => a.id - b.id);
      for (const operand of operands) if (!seen.has(operand)) stack.push({ value: operand, isDone: false });
    }
  }
  return order;
}

import { dimAdd, dimEquals } from "./dim.ts";
import * as op from "./ops/build.ts";
import type { OpName } from "./ops/signatures.ts";
import type { Node, Value } from "./value.ts";

/**
 * a + b, for cotangents of one value. A sum with a scatter into zeros scatters into the other term, and parts that lie next
 * to each other are put together, as those of a value that was cut up: either saves passes over zeros.
 */
export const accumulate = (a: Value, b: Value): Value =>
  scattered(a, b) ?? scattered(b, a) ?? joined(a, b) ?? joined(b, a) ?? op.add(a, b);

/** `sum` with the updates of `sparse`, if that is a scatter into zeros. */
function scattered(sum: Value, sparse: Value): Value | undefined {
  const { source } = sparse;
  if (source.kind !== "node" || !isZeros((source.node.inputs as readonly Value[])[0])) return undefined;
  const { node } = source;
  if (node.op !== "ScatterElements" && node.op !== "ScatterND") return undefined;
  const [, indices, updates] = node.inputs as readonly Value[];
  return op.apply(node.op, [sum, indices!, updates!], node.attributes as { axis: number });
}

/** `front` + `behind`, if each is a part with zeros around it and the one's part begins where the other's ends. */
function joined(front: Value, behind: Value): Value | undefined {
  const [first, second] = [nodeOf(front, "Pad"), nodeOf(behind, "Pad")];
  if (!first || !second) return undefined;
  const { axis, before } = first.attributes;
  const [part, next] = [first.inputs[0], second.inputs[0]];
  const end = dimAdd(before, part.shape[axis]!);
  if (second.attributes.axis !== axis || !dimEquals(end, second.attributes.before)) return undefined;
  const together = op.concat([...partsOf(part, axis), ...partsOf(next, axis)], axis);
  const { after } = second.attributes;
  return dimEquals(before, 0) && dimEquals(after, 0) ? together : op.pad(together, axis, before, after);
}

/** What was put together along an axis; else the value itself. */
function partsOf(x: Value, axis: number): readonly Value[] {
  const node = nodeOf(x, "Concat");
  return node?.attributes.axis === axis ? node.inputs : [x];
}

const nodeOf = <Op extends OpName>({ source }: Value, name: Op): Node<Op> | undefined =>
  source.kind === "node" && source.node.op === name ? (source.node as unknown as Node<Op>) : undefined;

/** True for `full(0, shape)`. */
export function isZeros(x: Value | undefined): boolean {
  if (x?.source.kind === "node" && x.source.node.op === "Expand")
    return isZeros((x.source.node.inputs as readonly Value[])[0]);
  return (
    x?.source.kind === "constant" &&
    x.source.tensor.data.length === 1 &&
    Number(x.source.tensor.data[0]) === 0
  );
}

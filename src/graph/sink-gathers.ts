import { type Dim, dimEquals } from "./dim.ts";
import { gather, reshape } from "./ops/build.ts";
import { leadingAxes, type RowWise, rowWise } from "./row-wise.ts";
import { substitute } from "./substitute.ts";
import { dependents, operandsOf, reachable } from "./traverse.ts";
import type { Node, Value } from "./value.ts";

/** Rows of values that have `count` of them are gathered at `indices`. */
type Choice = { readonly indices: Value; readonly rows: Dim; readonly gathers: ReadonlySet<Value> };

/**
 * The same outputs with gathers of rows moved up, in front of what computes rows on their own: f(x)[i] = f(x[i]). A loss that
 * gathers the labelled rows of the last hidden states computes the last norm and MLP and the end of attention at those alone, and so
 * does its gradient, if it is derived from the result.
 *
 * A gather moves past a value only if nothing else reads it, so nothing is computed twice; it ends where something else does, or where
 * rows depend on each other. It is moved along axis 0 of values with a symbolic number of rows, for indices of one axis.
 * With `behind`, it moves only past values that depend on one of these. So frozen values stay whole, and can be kept for each
 * example (see `cutFrozen`).
 */
export function sinkGathers(
  outputs: Readonly<Record<string, Value>>,
  { behind }: { behind?: readonly Value[] } = {},
): Record<string, Value> {
  for (let current = { ...outputs }; ; ) {
    const sunk = sinkOnce(current, behind);
    if (sunk === undefined) return current;
    current = sunk;
  }
}

/** Moves the gathers of one choice of rows; undefined if none can be moved. */
function sinkOnce(
  outputs: Readonly<Record<string, Value>>,
  behind: readonly Value[] | undefined,
): Record<string, Value> | undefined {
  const values = reachable(Object.values(outputs));
  const users = usersOf(values);
  for (const output of Object.values(outputs)) users.get(output)!.push(undefined);
  const movable = behind && dependents(values, behind);
  for (const choice of choicesOf(values)) {
    const sunk = sinkable(values, users, choice, movable);
    if (![...sunk.keys()].some(isWork)) continue;
    const chosen = chooser(sunk, choice);
    return substitute(
      outputs,
      new Map([...choice.gathers].map((result) => [result, chosen(dataOf(result))])),
    );
  }
  return undefined;
}

/** Reshaping fewer rows saves nothing. */
const isWork = ({ source }: Value): boolean => source.kind === "node" && source.node.op !== "Reshape";

type Users = ReadonlyMap<Value, (Value | undefined)[]>;

/** The values that read each value; undefined for an output. */
function usersOf(values: readonly Value[]): Map<Value, (Value | undefined)[]> {
  const users = new Map<Value, (Value | undefined)[]>(values.map((value) => [value, []]));
  for (const value of values) for (const x of operandsOf(value)) users.get(x)!.push(value);
  return users;
}

const dataOf = ({ source }: Value): Value => (source as { node: Node<"Gather"> }).node.inputs[0];

/** Gathers with the same indices, of equally many rows. */
function choicesOf(values: readonly Value[]): Choice[] {
  const choices: { indices: Value; rows: Dim; gathers: Set<Value> }[] = [];
  for (const value of values) {
    if (value.source.kind !== "node" || value.source.node.op !== "Gather") continue;
    const { inputs, attributes } = value.source.node as Node<"Gather">;
    const [data, indices] = inputs;
    const rows = data.shape[0]!;
    if (attributes.axis !== 0 || indices.rank !== 1 || typeof rows === "number") continue;
    if (attributes.paddingIndex !== undefined) continue;
    const known = choices.find((choice) => choice.indices === indices && dimEquals(choice.rows, rows));
    if (known) known.gathers.add(value);
    else choices.push({ indices, rows, gathers: new Set([value]) });
  }
  return choices;
}

/** The values that gathers move past. Users come before what they use when the values are taken backwards. */
function sinkable(
  values: readonly Value[],
  users: Users,
  { rows, gathers, indices }: Choice,
  movable: ReadonlySet<Value> | undefined,
): ReadonlyMap<Value, RowWise> {
  const sunk = new Map<Value, RowWise>();
  const readsRows = (user: Value | undefined, value: Value): boolean => {
    if (user === undefined) return false;
    if (gathers.has(user)) return value !== indices;
    const { source } = user;
    return (
      source.kind === "node" &&
      (sunk.get(user)?.hasRows.every((has, i) => has || source.node.inputs[i] !== value) ?? false)
    );
  };
  for (const value of values.toReversed()) {
    const of = users.get(value)!;
    if (value.source.kind !== "node" || (movable && !movable.has(value))) continue;
    if (of.length === 0 || !of.every((user) => readsRows(user, value))) continue;
    const how = rowWise(value.source.node, rows);
    if (how) sunk.set(value, how);
  }
  return sunk;
}

/** Gives values as [indices, …]: what is sunk computed from chosen rows, everything else gathered. */
function chooser(sunk: ReadonlyMap<Value, RowWise>, { indices, rows }: Choice): (value: Value) => Value {
  const count = indices.shape[0]!;
  const known = new Map<Value, Value>();
  const chosen = (value: Value): Value => {
    const found = known.get(value) ?? compute(value);
    known.set(value, found);
    return found;
  };
  const compute = (value: Value): Value => {
    const how = sunk.get(value);
    if (how === undefined || value.source.kind !== "node") {
      const rest = value.shape.slice(leadingAxes(value.shape, rows)!);
      return gather(reshape(value, [rows, ...rest]), indices);
    }
    const inputs = value.source.node.inputs as readonly (Value | undefined)[];
    return how.onRows(
      inputs.map((x, i) => (x && how.hasRows[i] ? chosen(x) : x)),
      count,
    );
  };
  // In the order of creation, so that no recursion is deep.
  for (const value of [...sunk.keys()].toReversed()) chosen(value);
  return chosen;
}

import { type Shape, slot } from "./places.ts";

/** Per numbered list on the way to a module, the numbers that count; null for all that there are. */
export type Box = readonly (readonly number[] | null)[];

/**
 * The wanted modules of a shape as products of numbers: few, and each leaves out none of a list's items where it can.
 * For nested lists both orders are tried: by outer items and by inner ones.
 */
export function boxesOf(shape: Shape): Box[] {
  const wanted = shape.numbers.filter((_, i) => shape.isWanted[i]);
  const depth = shape.parts.filter((part) => part === slot).length;
  const outward = split(wanted, shape.numbers, 0, (numbers, i) => numbers[i]!, depth);
  if (depth < 2 || outward.length < 2) return outward;
  const inward = split(wanted, shape.numbers, 0, (numbers, i) => numbers[depth - 1 - i]!, depth);
  return inward.length < outward.length ? inward.map((box) => [...box].reverse()) : outward;
}

type Numbers = readonly number[];

function split(
  wanted: readonly Numbers[],
  all: readonly Numbers[],
  level: number,
  at: (numbers: Numbers, level: number) => number,
  depth: number,
): Box[] {
  if (wanted.length === all.length) return [Array<null>(depth - level).fill(null)];
  const available = groupBy(all, (numbers) => at(numbers, level));
  const merged = new Map<string, { values: number[]; rest: Box[] }>();
  for (const [value, some] of groupBy(wanted, (numbers) => at(numbers, level))) {
    const rest = split(some, available.get(value)!, level + 1, at, depth);
    const key = JSON.stringify(rest);
    const same = merged.get(key);
    if (same === undefined) merged.set(key, { values: [value], rest });
    else same.values.push(value);
  }
  return [...merged.values()].flatMap(({ values, rest }) => {
    const own = values.length === available.size ? null : values.sort((a, b) => a - b);
    return rest.map((box) => [own, ...box]);
  });
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => number): Map<number, T[]> {
  const groups = new Map<number, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}

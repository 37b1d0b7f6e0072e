import { numberRuns } from "../number-runs.ts";
import type { Structure } from "../structure/index.ts";

/** Names that differ only in the numbers of layers. */
export type FoldedNames = {
  /** `model.layers.{0-3,5}.self_attn.q_proj`; a single name as it is. */
  readonly text: string;
  readonly count: number;
};

/** Folds names over numbered lists, in the order of their first members. */
export function foldNames(names: Iterable<string>, structure: Structure): FoldedNames[] {
  const byTemplate = new Map<string, number[][]>();
  for (const name of names) {
    const { template, positions } = structure.placeOf(name);
    const indices = positions.map(({ index }) => index);
    const known = byTemplate.get(template);
    if (known === undefined) byTemplate.set(template, [indices]);
    else known.push(indices);
  }
  return [...byTemplate].flatMap(([template, tuples]) =>
    foldTuples(tuples).map(({ ranges, count }) => {
      let position = 0;
      return { text: template.replace(/(?<=^|\.)#(?=\.|$)/g, () => ranges[position++]!), count };
    }),
  );
}

type Folded = { readonly ranges: readonly string[]; readonly count: number };

/** Indices of the same depth as few products of ranges. */
function foldTuples(tuples: readonly (readonly number[])[], depth = 0): Folded[] {
  if (tuples.length === 0 || tuples[0]!.length === depth) return [{ ranges: [], count: tuples.length }];
  const byIndex = new Map<number, (readonly number[])[]>();
  for (const tuple of tuples) {
    const known = byIndex.get(tuple[depth]!);
    if (known === undefined) byIndex.set(tuple[depth]!, [tuple]);
    else known.push(tuple);
  }
  const alike = new Map<string, { indices: number[]; inner: Folded[] }>();
  for (const [index, rest] of byIndex) {
    const inner = foldTuples(rest, depth + 1);
    const key = JSON.stringify(inner);
    const known = alike.get(key);
    if (known === undefined) alike.set(key, { indices: [index], inner });
    else known.indices.push(index);
  }
  return [...alike.values()].flatMap(({ indices, inner }) =>
    inner.map(({ ranges, count }) => ({
      ranges: [indices.length === 1 ? String(indices[0]) : `{${numberRanges(indices)}}`, ...ranges],
      count: count * indices.length,
    })),
  );
}

/** `[0, 1, 2, 5]` as `0-2,5`. */
export const numberRanges = (numbers: readonly number[]): string =>
  numberRuns(numbers)
    .map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`))
    .join(",");

import {
  type Dim,
  dimAdd,
  dimFloorDivide,
  dimMultiply,
  dimSubtract,
  op,
  type Value,
} from "../graph/index.ts";

/** Keys and values of one layer, each [batch, kvHeads, tokens, size]. */
export type KeyValue = { readonly key: Value; readonly value: Value };

/** Added to the scores of positions that may not be attended to; finite, so that a row without any stays finite. */
const MASKED = -1e30;

/**
 * Additive causal mask.
 * Shapes: attentionMask [batch, total] (float, 1 for real tokens), result [batch, 1, 1, queries, total], total = past + queries.
 * Query i (at place past + i) sees key j if j is real, j ≤ past + i and, with a window w, j > past + i - w. Where a cache has
 * room for more, `places` [total] (float) says the place of each key in the sequence, those of the queries last. With `segments`
 * [batch, total], which number what belongs together (there is no past then), it sees keys of its own number alone; padding
 * needs one that no token has, and the attention mask is not read.
 * Source: transformers masking_utils.py (causal and sliding-window masks go by place in the sequence, not position id;
 * packed_sequence_mask_function).
 */
export function causalMask(
  attentionMask: Value,
  {
    queries,
    past,
    window,
    segments,
    places,
  }: { queries: Dim; past: Dim; window?: number; segments?: Value; places?: Value },
): Value {
  const [batch, total] = attentionMask.shape as [Dim, Dim];
  const own = places ? op.slice(places, 0, past, total) : op.range(past, total);
  const query = op.unsqueeze(own, 1); // [queries, 1]
  const key = op.unsqueeze(places ?? op.range(0, total), 0); // [1, total]
  let visible = op.lessOrEqual(key, query);
  if (window !== undefined) visible = op.and(visible, op.greater(key, op.sub(query, window)));
  const related = segments
    ? op.equal(op.unsqueeze(segments, 2), op.unsqueeze(segments, 1))
    : op.greater(op.reshape(attentionMask, [batch, 1, total]), 0.5);
  const mask = op.where(op.and(op.unsqueeze(visible, 0), related), 0, MASKED); // [batch, queries, total]
  return op.reshape(mask, [batch, 1, 1, queries, total]);
}

/**
 * Additive mask that hides padding and nothing else: every query sees every real key.
 * Shapes: attentionMask [batch, keys] (float, 1 for real tokens), result [batch, 1, 1, 1, keys].
 */
export function paddingMask(attentionMask: Value): Value {
  const [batch, keys] = attentionMask.shape as [Dim, Dim];
  return op.reshape(op.where(op.greater(attentionMask, 0.5), 0, MASKED), [batch, 1, 1, 1, keys]);
}

/**
 * A causal mask of as many queries as keys, cut into blocks of queries, each with the keys up to its last query: what comes
 * later, no query of the block sees. Shapes: mask [batch, 1, 1, queries, queries], the i-th of `count` results
 * [batch, 1, 1, block, end], with ends ⌊queries / count⌋ · (i + 1), but `queries` for the last.
 */
export function maskBlocks(mask: Value, count: number): Value[] {
  if (count === 1) return [mask];
  const queries = mask.shape[3]!;
  const length = dimFloorDivide(queries, count);
  return Array.from({ length: count }, (_, i) => {
    const start = dimMultiply(length, i);
    const end = i === count - 1 ? queries : dimAdd(start, length);
    return op.slice(op.slice(mask, 3, start, end), 4, 0, end);
  });
}

/**
 * Causal attention in blocks of queries, of which each reads only the keys that it can see: of n blocks, (n + 1) / 2n of the
 * scores are computed. `masks` are those of `maskBlocks`; everything else as in `groupedAttention`, but for earlier tokens and dropout.
 */
export function blockedAttention(
  q: Value,
  k: Value,
  v: Value,
  { masks, scale }: { masks: readonly Value[]; scale: number },
): Value {
  const parts = masks.map((mask) => {
    const [count, end] = [mask.shape[3]!, mask.shape[4]!];
    const queries = op.slice(q, 2, dimSubtract(end, count), end);
    return groupedAttention(queries, op.slice(k, 2, 0, end), op.slice(v, 2, 0, end), { mask, scale });
  });
  return op.concat(parts, 2);
}

export type AttentionOptions = {
  readonly mask?: Value;
  readonly scale: number;
  /** Keys and values of earlier tokens, which come before k and v; with them total is past + new. */
  readonly past?: KeyValue | undefined;
  readonly dropout?: (weights: Value) => Value;
};

/**
 * softmax(q kᵀ · scale + mask) v, with the query heads of a group folded into rows, so that grouped keys and values are
 * never repeated. Cached keys and values are read where they lie: scores of both parts are put together, never the parts.
 * Shapes: q [batch, heads, queries, size], k and v [batch, kvHeads, new, size], past [batch, kvHeads, past, size], mask
 * [batch, 1, 1, queries or 1, total] (none: every query sees every key), result [batch, heads, queries, size]. `dropout` sees
 * the weights [batch, kvHeads, heads / kvHeads, queries, total].
 */
export function groupedAttention(
  q: Value,
  k: Value,
  v: Value,
  { mask, scale, past, dropout = (x) => x }: AttentionOptions,
): Value {
  const [batch, heads, queries, size] = q.shape as [Dim, number, Dim, number];
  const kvHeads = k.shape[1] as number;
  const group = heads / kvHeads;
  const rows = dimMultiply(queries, group);
  const folded = op.reshape(op.mul(q, scale), [batch, kvHeads, rows, size]);
  const scoresOf = (key: Value): Value => op.matmul(folded, op.transposeLast(key)); // [batch, kvHeads, group·queries, keys]
  const scores = past ? op.concat([scoresOf(past.key), scoresOf(k)], -1) : scoresOf(k);
  const total = scores.shape[3]!;
  const grouped = op.reshape(scores, [batch, kvHeads, group, queries, total]);
  const masked = mask ? op.add(grouped, mask) : grouped;
  const weights = op.reshape(dropout(op.softmax(masked)), [batch, kvHeads, rows, total]);
  return op.reshape(weighted(weights, v, past?.value), [batch, heads, queries, size]);
}

/** weights · [past; v]. */
function weighted(weights: Value, v: Value, past: Value | undefined): Value {
  if (!past) return op.matmul(weights, v);
  const total = weights.shape[3]!;
  const cached = past.shape[2]!;
  const earlier = op.matmul(op.slice(weights, 3, 0, cached), past);
  return op.add(earlier, op.matmul(op.slice(weights, 3, cached, total), v));
}

/** [batch, sequence, heads · size] to [batch, heads, sequence, size]. */
export function splitHeads(x: Value, heads: number): Value {
  const [batch, sequence, width] = x.shape as [Dim, Dim, number];
  return op.transpose(op.reshape(x, [batch, sequence, heads, width / heads]), [0, 2, 1, 3]);
}

/** [batch, heads, sequence, size] to [batch, sequence, heads · size]. */
export function mergeHeads(x: Value): Value {
  const [batch, heads, sequence, size] = x.shape as [Dim, number, Dim, number];
  return op.reshape(op.transpose(x, [0, 2, 1, 3]), [batch, sequence, heads * size]);
}

/**
 * The threshold of a selection of the largest values, found by three counting passes over the bits of their
 * keys (11, 11 and 10 bits) rather than by sorting: linear in the number of values, however they are spread.
 */
export type Threshold = {
  /** Key of the smallest value selected. */
  key: number;
  /** Weight of all values above it. */
  above: number;
};

/**
 * Of each float32 an int32 in the same order: −∞ lowest, ∞ highest, −0 equal to 0. The bits of a float that is
 * not negative already are; of a negative one all but the sign are inverted.
 */
export function orderedKeys(values: Float32Array): Int32Array {
  const keys = new Int32Array(values.length);
  new Float32Array(keys.buffer).set(values);
  for (let i = 0; i < keys.length; i++) {
    const bits = keys[i]!;
    const key = bits ^ ((bits >> 31) & 0x7fffffff); // without a branch: signs are hard to predict
    keys[i] = key === -1 ? 0 : key; // −1 is −0
  }
  return keys;
}

/** The float32 an ordered key belongs to. */
export function floatOfKey(key: number): number {
  const bits = Int32Array.of(key >= 0 ? key : key ^ 0x7fffffff);
  return new Float32Array(bits.buffer)[0]!;
}

/**
 * Finds the key such that the values above it weigh less than `target`, and with those equal to it at least
 * that. If everything together weighs less, it is the smallest key that weighs anything.
 * @param keys ordered keys of the values; without `weights` each weighs 1, so `target` is how many to select.
 * @param target above 0.
 */
export function selectTop(keys: Int32Array, target: number, weights?: Float64Array): Threshold {
  const high = new Float64Array(2048);
  if (weights) for (let i = 0; i < keys.length; i++) high[(keys[i]! >> 21) + 1024]! += weights[i]!;
  else for (let i = 0; i < keys.length; i++) high[(keys[i]! >> 21) + 1024]! += 1;
  const first = find(high, 0, target);
  const top = first.digit - 1024;

  const candidates: number[] = [];
  for (let i = 0; i < keys.length; i++) if (keys[i]! >> 21 === top) candidates.push(i);
  const middle = new Float64Array(2048);
  for (const i of candidates) middle[(keys[i]! >> 10) & 2047]! += weights ? weights[i]! : 1;
  const second = find(middle, first.above, target);
  const prefix = top * 2048 + second.digit;

  const low = new Float64Array(1024);
  for (const i of candidates)
    if (keys[i]! >> 10 === prefix) low[keys[i]! & 1023]! += weights ? weights[i]! : 1;
  const third = find(low, second.above, target);
  return { key: prefix * 1024 + third.digit, above: third.above };
}

/** The bucket, from the highest down, at which the weight reaches the target, and the weight above it. */
function find(buckets: Float64Array, aboveAll: number, target: number): { digit: number; above: number } {
  // Sums of different groupings differ in the last digit, so the target may be missed: stop at the last bucket.
  let lowest = 0;
  while (lowest < buckets.length - 1 && buckets[lowest] === 0) lowest++;
  let digit = buckets.length - 1;
  let above = aboveAll;
  while (digit > lowest && !(above + buckets[digit]! >= target)) above += buckets[digit--]!;
  return { digit, above };
}

/** Indices of the `count` largest values, the largest first; of equal ones that of the lower index. −∞ is left out. */
export function topIndices(values: Float32Array, count: number): number[] {
  const keys = orderedKeys(values);
  const { key, above } = selectTop(keys, Math.min(count, values.length));
  let atKey = Math.min(count, values.length) - above;
  const top: number[] = [];
  for (let i = 0; i < keys.length; i++)
    if (values[i] !== -Infinity && (keys[i]! > key || (keys[i] === key && atKey-- > 0))) top.push(i);
  return top.sort((a, b) => values[b]! - values[a]! || a - b);
}

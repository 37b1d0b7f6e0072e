import { constantOf, type Dim, dimEquals, dimMultiply, dimProduct, op, type Value } from "../graph/index.ts";
import { seededGenerator } from "../tensor/random.ts";
import { fromRows, toRows } from "./linear.ts";
import { Layer } from "./module.ts";

/** What dropouts of a graph that is being built draw from: random int32 per row, [rows], one for each number of rows. */
let current: { readonly noise: readonly Value[]; readonly ofModel: boolean } = { noise: [], ofModel: false };

/**
 * Builds a part of a graph in which dropouts are active: those of adapters, and with `ofModel` (the default) those that belong
 * to the model itself, which its config.json names. Each draws from the noise that has as many rows as what it drops from:
 * [batch · sequence] for hidden states, say. Outside, and where no noise fits, dropouts are the identity.
 */
export function withDropoutNoise<T>(
  noise: readonly Value[],
  build: () => T,
  { ofModel = true }: { ofModel?: boolean } = {},
): T {
  const outer = current;
  current = { noise, ofModel };
  try {
    return build();
  } finally {
    current = outer;
  }
}

const noiseOf = (rows: Dim): Value | undefined =>
  current.noise.find((noise) => dimEquals(noise.shape[0]!, rows));

/** The same for what belongs to the model. */
const modelNoiseOf = (rows: Dim): Value | undefined => (current.ofModel ? noiseOf(rows) : undefined);

/**
 * Inverted dropout inside the graph: y = x · m / (1 - p), m ~ Bernoulli(1 - p), independent per element; the identity unless
 * there is noise: its own, or that of `withDropoutNoise`. Shape of x: [rows, features].
 *
 * The mask comes from one random int32 per row, fed at every step, times a fixed random int32 per feature: the product mod
 * 2³² is compared with a threshold (multiply-shift hashing, Dietzfelbinger et al. 1997). So a step's masks follow from its
 * seed alone, a resumed run repeats them, and no random operator of the runtime is needed.
 */
export class Dropout extends Layer {
  override readonly className = "Dropout";
  override readonly kind = "dropout";
  readonly p: number;
  private readonly seed: number;
  /** Random int32 per row, [rows]; set while a training graph is built. */
  noise: Value | undefined;

  /** `seed` tells the dropouts of a model apart: their masks are independent. */
  constructor(p: number, seed: number) {
    super();
    this.p = p;
    this.seed = seed;
  }

  override forward(x: Value): Value {
    if (this.p === 0) return x;
    const [rows, features] = x.shape as [Dim, number];
    const noise = this.noise ?? noiseOf(rows);
    if (noise === undefined) return x;
    // wraps mod 2³²
    const random = op.mul(op.reshape(noise, [rows, 1]), oddFactors(features, [1, features], this.seed));
    return drop(x, random, this.p);
  }
}

/** Dropout of hidden states that is no module of its own, as torch.nn.functional.dropout. Shape of x: [..., features]. */
export const dropFeatures = (x: Value, p: number, seed: number): Value =>
  p === 0 || modelNoiseOf(dimProduct(x.shape.slice(0, -1))) === undefined
    ? x
    : fromRows(new Dropout(p, seed).forward(toRows(x)), x);

/**
 * Stochastic depth: drops whole samples, x · m / (1 - p) with one m ~ Bernoulli(1 - p) for each. Shape of x: [samples, ...].
 * It draws from the noise that has a row for each sample.
 * Source: Huang et al. 2016, "Deep Networks with Stochastic Depth".
 */
export function dropSamples(x: Value, p: number, seed: number): Value {
  const [samples, ...others] = x.shape;
  const noise = modelNoiseOf(samples!);
  if (p === 0 || noise === undefined) return x;
  const one = others.map(() => 1);
  const random = op.mul(op.reshape(noise, [samples!, ...one]), oddFactors(1, [1, ...one], seed));
  return drop(x, random, p);
}

/**
 * Dropout of attention weights, independent per head, query and key. Shape: [batch, kvHeads, group, queries, keys].
 * An element's random number is n · m (2m + 1) · c, n the noise of its query's row, m that of its key's and c of its head;
 * m (2m + 1) is a permutation of the integers mod 2³² (Rivest et al. 1998), without which a mask over one sequence would be
 * symmetric.
 */
export function dropAttention(weights: Value, p: number, seed: number): Value {
  if (p === 0) return weights;
  const [batch, kvHeads, group, queries, keys] = weights.shape as [Dim, number, number, Dim, Dim];
  const [n, m] = [modelNoiseOf(dimMultiply(batch, queries)), modelNoiseOf(dimMultiply(batch, keys))];
  if (n === undefined || m === undefined) return weights;
  const one = constantOf([1], [], "int32");
  const permuted = op.mul(m, op.add(op.add(m, m), one));
  const query = op.reshape(n, [batch, 1, 1, queries, 1]);
  const key = op.reshape(permuted, [batch, 1, 1, 1, keys]);
  const head = oddFactors(kvHeads * group, [1, kvHeads, group, 1, 1], seed);
  return drop(weights, op.mul(op.mul(query, head), key), p);
}

/** x / (1 - p) where the int32 `random` is high enough, else 0. */
function drop(x: Value, random: Value, p: number): Value {
  const threshold = Math.min(Math.round(p * 2 ** 32), 2 ** 32 - 1) - 2 ** 31;
  const keep = op.greaterOrEqual(random, constantOf([threshold], [], "int32"));
  return op.where(keep, op.mul(x, 1 / (1 - p)), 0);
}

/** Odd random int32 factors. */
function oddFactors(count: number, shape: readonly number[], seed: number): Value {
  const generator = seededGenerator(seed);
  return constantOf(
    Array.from({ length: count }, () => generator.next() | 1),
    shape,
    "int32",
  );
}

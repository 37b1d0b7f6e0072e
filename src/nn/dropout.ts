import { constantOf, type Dim, op, type Value } from "../graph/index.ts";
import { seededGenerator } from "../tensor/random.ts";
import { Layer } from "./module.ts";

/**
 * Inverted dropout inside the graph: y = x · m / (1 - p), m ~ Bernoulli(1 - p), independent per element; the identity unless
 * `noise` is set. Shape of x: [rows, features].
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
    if (this.p === 0 || this.noise === undefined) return x;
    const [rows, features] = x.shape as [Dim, number];
    const random = op.mul(op.reshape(this.noise, [rows, 1]), columnFactors(features, this.seed)); // wraps mod 2³²
    const threshold = Math.min(Math.round(this.p * 2 ** 32), 2 ** 32 - 1) - 2 ** 31;
    const keep = op.greaterOrEqual(random, constantOf([threshold], [], "int32"));
    return op.where(keep, op.mul(x, 1 / (1 - this.p)), 0);
  }
}

/** Odd random int32 factors, [1, features]. */
function columnFactors(features: number, seed: number): Value {
  const generator = seededGenerator(seed);
  return constantOf(
    Array.from({ length: features }, () => generator.next() | 1),
    [1, features],
    "int32",
  );
}

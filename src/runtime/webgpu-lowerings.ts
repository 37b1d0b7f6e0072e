import { type Dim, type Lowering, op, type Value } from "../graph/index.ts";

/** Two parts of 2π: the first has 8 bits, so that its products with whole numbers below 2^16 are exact. */
const TURN_HIGH = 6.28125;
const TURN_LOW = 2 * Math.PI - TURN_HIGH;

/** Half of x less its whole turns, in [-π/2, π/2]. x in radians, at most some 10⁵ of them. */
function halfAngle(x: Value): Value {
  const turns = op.mul(x, 1 / (2 * Math.PI));
  const nearest = op.add(turns, op.where(op.less(x, 0), -0.5, 0.5));
  const whole = op.cast(op.cast(nearest, "int32"), x.dtype); // cuts off towards 0
  return op.mul(op.sub(op.sub(x, op.mul(whole, TURN_HIGH)), op.mul(whole, TURN_LOW)), 0.5);
}

/** Σ (-1)ᵏ x²ᵏ / (first + 2k)! · first!, seven terms, by Horner's rule: cos x for first 0, sin x / x for first 1. */
function alternatingSeries(square: Value, first: 0 | 1): Value {
  let sum: Value = op.add(op.mul(square, 0), 1);
  for (let k = 6; k > 0; k--)
    sum = op.sub(1, op.mul(op.mul(square, sum), 1 / ((first + 2 * k) * (first + 2 * k - 1))));
  return sum;
}

function sineAndCosine(x: Value): { sine: Value; cosine: Value } {
  const half = halfAngle(x);
  const square = op.mul(half, half);
  return { sine: op.mul(half, alternatingSeries(square, 1)), cosine: alternatingSeries(square, 0) };
}

/**
 * The kernel of ONNX Runtime 1.30 takes wrong channels where groups have several inputs and one output each. So they get a
 * second output, of zeros, which is cut off again.
 */
const widenGroups: NonNullable<Lowering["ConvTranspose"]> = ([x, w], attributes) => {
  const { group } = attributes;
  if (group === 1 || w.shape[1] !== 1 || x.shape[1] === group) return op.convTranspose(x, w, attributes);
  const wide = op.convTranspose(x, op.pad(w, 1, 0, 1), attributes);
  const [batch, , height, width] = wide.shape as [Dim, Dim, Dim, Dim];
  const pairs = op.reshape(wide, [batch, group, 2, height, width]);
  return op.squeeze(op.slice(pairs, 2, 0, 1), 2);
};

/**
 * Rewrites for WebGPU. Found by comparing every operator with the CPU (test/runtime/webgpu.test.ts).
 *
 * Left to fall back to the CPU, where they are right and their tensors small: arithmetic, comparison and movement of
 * int64 (indices), Cast from int64, and sizes of symbolic dimensions; float64 altogether. Casts of bfloat16 weights are
 * folded on the CPU when a session is created. Float16 needs a GPU with shader-f16.
 */
export const webgpuLowering: Lowering = {
  // No kernel. a ∨ b = ¬(¬a ∧ ¬b)
  Or: ([a, b]) => op.not(op.and(op.not(a), op.not(b))),
  LogSoftmax: ([x], { axis }) => op.sub(x, op.reduceLogSumExp(x, { axes: [axis] })),
  ConvTranspose: widenGroups,
  // WGSL promises an error of 2⁻¹¹ for angles in [-π, π] and nothing beyond (WGSL, floating point accuracy); angles of rotary embeddings reach
  // thousands. With h = x/2 less whole turns: cos x = 1 - 2 sin² h, sin x = 2 sin h cos h.
  Cos: ([x]) => {
    const { sine } = sineAndCosine(x);
    return op.sub(1, op.mul(op.mul(sine, sine), 2));
  },
  Sin: ([x]) => {
    const { sine, cosine } = sineAndCosine(x);
    return op.mul(op.mul(sine, cosine), 2);
  },
};

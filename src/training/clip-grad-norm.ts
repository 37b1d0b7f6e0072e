import { TrainingError } from "../errors.ts";
import type { TensorMap } from "./optimizers.ts";

export type ClipGradNormOptions = {
  /** Throw instead of scaling by a norm that is infinite or NaN. Default false, as in PyTorch. */
  errorIfNonfinite?: boolean;
};

/**
 * Scales gradients in place so that their joint 2-norm does not exceed `maxNorm`, and returns the norm before:
 *
 *     ‖g‖ = √Σᵢ‖gᵢ‖²        gᵢ ← gᵢ · min(1, maxNorm / (‖g‖ + 10⁻⁶))
 *
 * Sums are accumulated in double precision (PyTorch: float32; they agree to about 1e-7 relative). With
 * `maxNorm` 0 or `Infinity` nothing is scaled, so that one call serves for measuring and for clipping.
 *
 * @throws TrainingError if `maxNorm` is negative or NaN, or, with `errorIfNonfinite`, if the norm is not
 * finite; the error names the tensors at fault and the gradients are left as they were.
 * Source: Pascanu et al. 2013, algorithm 1; torch.nn.utils.clip_grad_norm_.
 */
export function clipGradNorm(
  gradients: TensorMap,
  maxNorm: number,
  { errorIfNonfinite = false }: ClipGradNormOptions = {},
): number {
  if (!(maxNorm >= 0))
    throw new TrainingError(`maxNorm must be at least 0 (0 leaves gradients as they are), got ${maxNorm}.`, {
      code: "invalid-max-norm",
      details: { maxNorm },
    });
  let total = 0;
  const nonfinite: string[] = [];
  for (const [name, { data }] of gradients) {
    const square = sumOfSquares(data);
    if (!Number.isFinite(square)) nonfinite.push(name);
    total += square;
  }
  if (errorIfNonfinite && nonfinite.length > 0)
    throw new TrainingError(
      `The gradient is not finite in ${nonfinite.length} of ${gradients.size} tensors, first in ${nonfinite[0]}. ` +
        "Lower the learning rate, clip harder (maxGradNorm), or look for broken weights or data.",
      { code: "nonfinite-gradient", details: { tensors: nonfinite } },
    );
  const norm = Math.sqrt(total);
  if (maxNorm > 0 && maxNorm < Infinity) {
    // As PyTorch divides a number by a float32 tensor: reciprocal first, each step rounded.
    const inverse = Math.fround(1 / Math.fround(Math.fround(norm) + Math.fround(1e-6)));
    const coefficient = Math.fround(inverse * Math.fround(maxNorm));
    if (!(coefficient >= 1)) for (const { data } of gradients.values()) scale(data, coefficient);
  }
  return norm;
}

/** Four running sums, so that additions need not wait for each other. */
function sumOfSquares(data: Float32Array): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = data.length - (data.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += data[i]! * data[i]!;
    b += data[i + 1]! * data[i + 1]!;
    c += data[i + 2]! * data[i + 2]!;
    d += data[i + 3]! * data[i + 3]!;
  }
  for (let i = whole; i < data.length; i++) a += data[i]! * data[i]!;
  return a + b + c + d;
}

function scale(data: Float32Array, coefficient: number): void {
  for (let i = 0; i < data.length; i++) data[i] = Math.fround(data[i]! * coefficient);
}

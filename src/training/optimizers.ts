import { listProblems, TrainingError } from "../errors.ts";
import { type Tensor, zeros } from "../tensor/index.ts";

/** Trainable tensors, or their gradients or optimizer state, by parameter name. */
export type TensorMap = ReadonlyMap<string, Tensor<"float32">>;

export type AdamWOptions = {
  /** Step size α; may be changed between steps through the `learningRate` property. Default 1e-3. */
  learningRate?: number;
  /** Decay rates of the two moments, each in [0, 1). Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Added to the denominator. Default 1e-8. */
  eps?: number;
  /** Decoupled weight decay λ. Default 0.01. */
  weightDecay?: number;
  /** Which parameters weight decay applies to; default: all. See {@link decaysWeight} for transformers' rule. */
  decays?: (name: string) => boolean;
};

/**
 * AdamW, with the float32 arithmetic of torch.optim.AdamW on CPU (amsgrad, maximize and capturable off):
 *
 *     θ ← θ·(1 − αλ)            m ← m + (1 − β₁)(g − m)        v ← β₂v + (1 − β₂)g²
 *     θ ← θ − α/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
 *
 * Every operation is rounded as PyTorch's AVX2 and AVX-512 kernels round it: `lerp_` and `addcmul_` with a
 * fused multiply-add, `addcdiv_` without. Moments are therefore equal bit for bit. Parameters are too,
 * except where PyTorch's square root (Intel MKL's, up to 0.75 ulp) is not the correctly rounded one used here.
 *
 * Parameters are updated in place; gradients are read only.
 *
 * Source: Loshchilov & Hutter 2019, algorithm 2; torch/optim/adam.py, `_single_tensor_adam`.
 */
export class AdamW {
  learningRate: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  #step = 0;
  readonly #slots: Slot[];

  /**
   * @param parameters float32 tensors, updated in place by `step`.
   * @throws TrainingError if a hyper-parameter is out of range or there is nothing to train; lists all problems.
   */
  constructor(parameters: TensorMap, options: AdamWOptions = {}) {
    const {
      learningRate = 1e-3,
      betas = [0.9, 0.999],
      eps = 1e-8,
      weightDecay = 0.01,
      decays = () => true,
    } = options;
    const problems: string[] = [];
    if (!(learningRate >= 0 && learningRate < Infinity))
      problems.push(`learningRate must be a finite number of at least 0, got ${learningRate}`);
    betas.forEach((beta, i) => {
      if (!(beta >= 0 && beta < 1)) problems.push(`betas[${i}] must be in [0, 1), got ${beta}`);
    });
    if (!(eps >= 0 && eps < Infinity)) problems.push(`eps must be a finite number of at least 0, got ${eps}`);
    if (!(weightDecay >= 0 && weightDecay < Infinity))
      problems.push(`weightDecay must be a finite number of at least 0, got ${weightDecay}`);
    if (parameters.size === 0)
      problems.push("there are no parameters: mark some as trainable, e.g. with getPeftModel");
    if (problems.length > 0)
      throw new TrainingError(`AdamW: ${problems.join("; ")}.`, {
        code: "invalid-optimizer",
        details: { problems },
      });
    this.learningRate = learningRate;
    this.betas = betas;
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.#slots = [...parameters].map(([name, parameter]) => ({
      name,
      parameter,
      expAvg: zeros("float32", parameter.shape),
      expAvgSq: zeros("float32", parameter.shape),
      weightDecay: decays(name) ? weightDecay : 0,
    }));
  }

  /** Updates made so far (t). */
  get stepCount(): number {
    return this.#step;
  }

  /**
   * One update of every parameter, at the current `learningRate`.
   * @throws TrainingError, before anything changes, if a gradient is missing, unknown or of another shape.
   */
  step(gradients: TensorMap): void {
    this.#check(gradients);
    this.#step++;
    const [beta1, beta2] = this.betas;
    const stepSize = this.learningRate / (1 - beta1 ** this.#step);
    const correction2 = (1 - beta2 ** this.#step) ** 0.5;
    for (const { name, parameter, expAvg, expAvgSq, weightDecay } of this.#slots)
      adamW(parameter.data, gradients.get(name)!.data, expAvg.data, expAvgSq.data, {
        decay: 1 - this.learningRate * weightDecay,
        beta1,
        beta2,
        eps: this.eps,
        negativeStepSize: -stepSize,
        correction2,
      });
  }

  /**
   * Everything but the parameters: `<name>.exp_avg` and `<name>.exp_avg_sq` per parameter, and `step`
   * (int64 scalar). Tensors are copies, so later steps do not change them.
   */
  stateDict(): Map<string, Tensor> {
    const state = new Map<string, Tensor>([
      ["step", { dtype: "int64", shape: [], data: BigInt64Array.of(BigInt(this.#step)) }],
    ]);
    for (const { name, expAvg, expAvgSq } of this.#slots) {
      state.set(`${name}.exp_avg`, { ...expAvg, data: expAvg.data.slice() });
      state.set(`${name}.exp_avg_sq`, { ...expAvgSq, data: expAvgSq.data.slice() });
    }
    return state;
  }

  /**
   * Continues from what `stateDict` returned, for the same parameters (in any order).
   * @throws TrainingError, before anything changes, naming every tensor that is missing, unknown or malformed.
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    const problems: string[] = [];
    const moments = new Map(
      this.#slots.flatMap(({ name, expAvg, expAvgSq }) => [
        [`${name}.exp_avg`, expAvg],
        [`${name}.exp_avg_sq`, expAvgSq],
      ]),
    );
    for (const [key, own] of moments) {
      const saved = state.get(key);
      if (!saved) problems.push(`${key} is missing`);
      else if (saved.dtype !== "float32" || !sameShape(saved.shape, own.shape))
        problems.push(`${key} is ${saved.dtype} [${saved.shape}], expected float32 [${own.shape}]`);
    }
    for (const key of state.keys())
      if (key !== "step" && !moments.has(key)) problems.push(`${key} belongs to no trainable parameter`);
    const step = state.get("step");
    const count = step?.dtype === "int64" && step.data.length === 1 ? Number(step.data[0]) : -1;
    if (!Number.isSafeInteger(count) || count < 0)
      problems.push("step must be an int64 scalar that is not negative");
    if (problems.length > 0)
      throw new TrainingError(
        `The optimizer state does not fit the trainable parameters: ${listProblems(problems)}. ` +
          "Resume with the adapter settings of the saved run, or start a new run.",
        { code: "optimizer-state", details: { problems } },
      );
    this.#step = count;
    for (const [key, own] of moments) own.data.set(state.get(key)!.data as Float32Array);
  }

  #check(gradients: TensorMap): void {
    const problems: string[] = [];
    for (const { name, parameter } of this.#slots) {
      const gradient = gradients.get(name);
      if (!gradient) problems.push(`no gradient for ${name}`);
      else if (!sameShape(gradient.shape, parameter.shape))
        problems.push(
          `gradient of ${name} has shape [${gradient.shape}], its parameter [${parameter.shape}]`,
        );
    }
    if (gradients.size > this.#slots.length) {
      const known = new Set(this.#slots.map(({ name }) => name));
      for (const name of gradients.keys())
        if (!known.has(name)) problems.push(`${name} is not a trainable parameter`);
    }
    if (problems.length > 0)
      throw new TrainingError(
        `Gradients and trainable parameters differ: ${listProblems(problems)}. ` +
          "Build the optimizer from the parameters that the training program differentiates.",
        { code: "gradient-mismatch", details: { problems } },
      );
  }
}

/**
 * Which parameters transformers' Trainer applies weight decay to: all but biases and norm weights, by name.
 * Source: transformers trainer.py, `Trainer.get_decay_parameter_names`.
 */
export const decaysWeight = (name: string): boolean =>
  !/bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)/.test(name.toLowerCase());

type Slot = {
  name: string;
  parameter: Tensor<"float32">;
  expAvg: Tensor<"float32">;
  expAvgSq: Tensor<"float32">;
  weightDecay: number;
};

type Scalars = {
  decay: number;
  beta1: number;
  beta2: number;
  eps: number;
  negativeStepSize: number;
  correction2: number;
};

/**
 * The update of one parameter. A float32 fused multiply-add is `fround(a * b + c)` in doubles: the product of
 * two float32 is exact there, and rounding the sum twice differs from rounding once in about one of 10⁹ cases.
 */
function adamW(
  theta: Float32Array,
  gradient: Float32Array,
  m: Float32Array,
  v: Float32Array,
  scalars: Scalars,
): void {
  const fround = Math.fround;
  const decay = fround(scalars.decay);
  const eps = fround(scalars.eps);
  const negativeStepSize = fround(scalars.negativeStepSize);
  const correction2 = fround(scalars.correction2);
  const beta2 = fround(scalars.beta2);
  const weight2 = fround(1 - scalars.beta2);
  const weight1 = fround(1 - scalars.beta1);
  // torch.lerp starts from the nearer end: m + w(g − m) if w < ½, else g + (w − 1)(g − m).
  const fromGradient = weight1 >= 0.5;
  const coefficient = fromGradient ? fround(weight1 - 1) : weight1;
  const length = theta.length;
  for (let i = 0; i < length; i++) {
    const g = gradient[i]!;
    const mOld = m[i]!;
    const mNew = fround(coefficient * fround(g - mOld) + (fromGradient ? g : mOld));
    m[i] = mNew;
    const vNew = fround(fround(weight2 * g) * g + fround(v[i]! * beta2));
    v[i] = vNew;
    const denominator = fround(fround(fround(Math.sqrt(vNew)) / correction2) + eps);
    theta[i] = fround(fround(theta[i]! * decay) + fround(fround(negativeStepSize * mNew) / denominator));
  }
}

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((dim, i) => dim === b[i]);

import { area, type GradientWork, gradientWork, type Maps } from "./positions.ts";
import type { Unit } from "./units.ts";

/** Operations (a multiplication and an addition are two) by what they are for. */
export type Flops = {
  /** Products with frozen weights. */
  frozen: number;
  /** Products with what is trained, but the head, and for its gradient. */
  trained: number;
  /** Queries with keys, attention weights with values. */
  attention: number;
  /** The product with the weight that scores the vocabulary. */
  head: number;
};

/** What a tower's passes cost. */
export type Account = {
  readonly forward: Flops;
  readonly backward: Flops;
  /** Activation gradients of the base model that would be computed too if they went on to the bottom. */
  stopped: number;
  /** Gradients of frozen weights, which nobody computes. */
  weightGradients: number;
  /** Of the forward pass, what no adapter changes: all below the lowest adapted layer. */
  frozenForward: number;
  keptBytes: number;
};

const noFlops = (): Flops => ({ frozen: 0, trained: 0, attention: 0, head: 0 });

export const newAccount = (): Account => ({
  forward: noFlops(),
  backward: noFlops(),
  stopped: 0,
  weightGradients: 0,
  frozenForward: 0,
  keptBytes: 0,
});

export const sumFlops = ({ frozen, trained, attention, head }: Flops): number =>
  frozen + trained + attention + head;

/** What is trained of a unit. */
export type Trained = {
  /** Sum of the ranks of its adapters: one, or one per adapted expert. */
  readonly rank: number;
  /** Its weight itself is trained. */
  readonly weight: boolean;
  /** Something of it is trained that takes no product: a bias, a magnitude. */
  readonly other: boolean;
};

/** A tensor that may have to stay in memory until the backward pass. */
export type Buffer = { readonly bytes: number; isKept: boolean };

/**
 * What flows from one operation to the next. `buffers` are what it takes to have it again in the backward pass: itself,
 * or what it is computed from where that is cheap (norms, activations).
 */
export type Flowing = {
  /** Depends on something trained, so the backward pass computes its gradient. */
  readonly isNeeded: boolean;
  readonly buffers: readonly Buffer[];
};

/** A buffer of float32 numbers. */
export const buffer = (elements: number): Buffer => ({ bytes: 4 * elements, isKept: false });

/** The fresh output of an operation. */
export const fresh = (isNeeded: boolean, elements: number): Flowing => ({
  isNeeded,
  buffers: [buffer(elements)],
});

/** Follows one batch through a model and books what each operation costs, and what of it must be kept. */
export class Flow {
  account: Account = newAccount();
  /** Of the largest single result, kept or not. */
  largestBytes = 0;
  readonly #trainedOf: (unit: Unit) => Trained;
  readonly #expertsPerToken: number;
  readonly #drops: boolean;

  constructor(trainedOf: (unit: Unit) => Trained, expertsPerToken: number, drops: boolean) {
    this.#trainedOf = trainedOf;
    this.#expertsPerToken = expertsPerToken;
    this.#drops = drops;
  }

  /** All of this tower's forward pass so far is what no adapter changes. */
  markFrozen(): void {
    this.account.frozenForward = sumFlops(this.account.forward);
  }

  keep({ buffers }: Flowing): void {
    for (const kept of buffers) {
      if (kept.isKept) continue;
      kept.isKept = true;
      this.account.keptBytes += kept.bytes;
    }
  }

  /**
   * y = x Wᵀ + s (x Aᵀ) Bᵀ on `rows` positions. Backward: dx where x depends on something trained, else only the
   * gradients of the factors. `atOnce` rows of y are in memory at the same time.
   */
  linear(
    x: Flowing,
    unit: Unit,
    rows: number,
    part: "frozen" | "head" = "frozen",
    atOnce: number = rows,
  ): Flowing {
    return this.#multiply(x, unit, { rows, part, atOnce, elements: rows * unit.inputs });
  }

  /** y = W ∗ x + s B ∗ (A ∗ x) on the images of all examples; as `linear`, where the sizes of the maps are not known. */
  convolution(x: Flowing, unit: Unit, examples: number, { before, after }: Maps): Flowing {
    return this.#multiply(x, unit, {
      rows: examples * area(after),
      part: "frozen",
      elements: examples * area(before) * unit.inputs,
      ...(unit.convolution && { work: gradientWork(unit.convolution, { before, after }) }),
    });
  }

  #multiply(
    x: Flowing,
    unit: Unit,
    { rows, part, elements, atOnce = rows, work = { kernel: 1, input: 1 } }: Multiplication,
  ): Flowing {
    const { forward, backward } = this.account;
    const { rank, weight, other } = this.#trainedOf(unit);
    const active = Math.min(this.#expertsPerToken, unit.experts);
    const product = 2 * rows * active * unit.weights;
    this.#sees(4 * atOnce * active * unit.outputs);
    /** Per rank; an expert's adapter sees its share of the positions. */
    const share = (rows * active) / unit.experts;
    const low = 2 * share * rank;
    const isNeeded = x.isNeeded || rank > 0 || weight || other;
    const own = weight && part === "frozen" ? "trained" : part;
    forward[own] += product;
    forward.trained += low * (unit.factorA + unit.factorB);
    if (x.isNeeded) backward[own] += product * work.input;
    else this.account.stopped += product * work.input;
    if (weight) {
      backward.trained += product * work.kernel;
      this.keep(x);
    } else this.account.weightGradients += product * work.kernel;
    if (rank > 0) {
      const { factorA, factorB } = unit;
      backward.trained += low * (2 * factorB + factorA * (work.kernel + (x.isNeeded ? work.input : 0)));
      if (this.#drops) this.keep(fresh(true, elements * (x.isNeeded ? 1.25 : 1)));
      else this.keep(x);
      this.keep(fresh(true, share * rank));
    }
    return fresh(isNeeded, atOnce * active * unit.outputs);
  }

  /** y = W[ids] + s (A[ids]) Bᵀ: rows are copied, only the second factor multiplies. */
  lookup(unit: Unit, rows: number): Flowing {
    const { rank, weight, other } = this.#trainedOf(unit);
    const low = 2 * rows * rank * unit.factorB;
    this.account.forward.trained += low;
    this.account.backward.trained += 2 * low;
    if (rank > 0) this.keep(fresh(true, rows * rank));
    return fresh(rank > 0 || weight || other, rows * unit.outputs);
  }

  #sees(bytes: number): void {
    if (bytes > this.largestBytes) this.largestBytes = bytes;
  }

  /** x / deviation · w: its gradient needs x, and its output is computed from x again. */
  norm(x: Flowing, trained?: "weight" | "bias"): Flowing {
    const isNeeded = x.isNeeded || trained !== undefined;
    // the gradient of a bias reads nothing
    if (x.isNeeded || trained === "weight") this.keep(x);
    return isNeeded === x.isNeeded ? x : { ...x, isNeeded };
  }

  /** The model's own dropout with probability p of `elements` numbers: its mask, of a byte each, stays for the gradient. */
  drop(x: Flowing, p: number, elements: number): Flowing {
    if (p === 0) return x;
    if (x.isNeeded) this.keep(fresh(true, elements / 4));
    return fresh(x.isNeeded, elements);
  }

  /** act(x): as a norm. */
  activation(x: Flowing): Flowing {
    return this.norm(x);
  }

  /** act(gate) · up, computed again from its two factors. */
  gated(gate: Flowing, up: Flowing): Flowing {
    if (gate.isNeeded || up.isNeeded) this.keep(gate);
    if (gate.isNeeded) this.keep(up);
    return { isNeeded: gate.isNeeded || up.isNeeded, buffers: [...gate.buffers, ...up.buffers] };
  }

  /**
   * softmax(q kᵀ) v. Every product with something that depends on what is trained has one product backward for each
   * such operand; the weights of attention themselves depend on it if queries or keys do.
   */
  attention(
    { q, k, v }: { q: boolean; k: boolean; v: boolean },
    {
      examples,
      queries,
      keys,
      width,
      keyWidth,
      valueWidth,
      heads,
      dropout = 0,
      hasHeadNorms,
      angles,
    }: AttentionShape,
  ): Flowing {
    const scores = 2 * examples * queries * keys * width;
    const weighted = 2 * examples * queries * keys * valueWidth;
    const { forward, backward } = this.account;
    forward.attention += scores + weighted;
    const p = q || k;
    const done = (q ? scores : 0) + (k ? scores : 0) + (p ? weighted : 0) + (v ? weighted : 0);
    backward.attention += done;
    this.account.stopped += 2 * (scores + weighted) - done;
    const weights = examples * heads * queries * keys;
    this.#sees(4 * weights);
    // what is dropped is multiplied with the values, softmax's gradient reads what it was before
    if (dropout === 0 ? p || v : p) this.keep(fresh(true, weights));
    if (dropout > 0 && p) this.keep(fresh(true, weights / 4));
    if (dropout > 0 && v) this.keep(fresh(true, weights));
    if (k) this.keep(fresh(true, examples * queries * width));
    if (q) this.keep(fresh(true, examples * keys * keyWidth));
    if (p) this.keep(fresh(true, examples * keys * keyWidth));
    if (hasHeadNorms && q) this.keep(fresh(true, examples * queries * width));
    if (hasHeadNorms && k) this.keep(fresh(true, examples * keys * keyWidth));
    if (p && angles !== undefined) this.keep({ isNeeded: true, buffers: [angles] });
    return fresh(p || v, examples * queries * valueWidth);
  }

  /** a + b: nothing to keep for its own gradient. */
  add(a: Flowing, b: Flowing, elements: number): Flowing {
    return fresh(a.isNeeded || b.isNeeded, elements);
  }
}

type Multiplication = {
  readonly rows: number;
  readonly part: "frozen" | "head";
  readonly atOnce?: number;
  /** Numbers of the input. */
  readonly elements: number;
  readonly work?: GradientWork;
};

export type AttentionShape = {
  /** Norms, and rotations by position, between projections and heads. */
  readonly hasHeadNorms: boolean;
  readonly angles: Buffer | undefined;
  readonly examples: number;
  readonly queries: number;
  readonly keys: number;
  /** Of all heads' queries, of all heads' values. */
  readonly width: number;
  readonly valueWidth: number;
  /** Of the keys (or values) as projected, fewer heads with grouped queries. */
  readonly keyWidth: number;
  readonly heads: number;
  /** Probability of the model's own dropout of attention weights. */
  readonly dropout?: number;
};

import { type Account, type Flops, newAccount, sumFlops } from "./account.ts";
import { aside, type Buffer, buffer, type Flowing, given, type Trained } from "./flowing.ts";
import { type Frozen, workOf } from "./frozen.ts";
import { area, type GradientWork, gradientWork, type Maps } from "./positions.ts";
import type { Unit } from "./units.ts";

/** Follows one batch through a model and books what each operation costs, and what of it must be kept. */
export class Flow {
  account: Account = newAccount();
  /** Of the largest single result, kept or not. */
  largestBytes = 0;
  readonly #trainedOf: (unit: Unit) => Trained;
  readonly #expertsPerToken: number;
  readonly #drops: boolean;
  /** Of all rows, those that what depends on something trained is computed at; undefined where that is all. */
  #chosenShare: number | undefined;
  readonly #chosen = new Map<Flowing, Flowing>();

  constructor(trainedOf: (unit: Unit) => Trained, expertsPerToken: number, drops: boolean) {
    this.#trainedOf = trainedOf;
    this.#expertsPerToken = expertsPerToken;
    this.#drops = drops;
  }

  /**
   * From here on every row is computed by itself, and only labelled ones are read: a share of all. What depends on something trained
   * is computed there alone; the rest is not, so that it can be kept.
   */
  chooseRows(share: number): void {
    this.#chosenShare = share;
  }

  /** What the loss reads of the last hidden states, whole or in slices. */
  labelled(x: Flowing, elements: number, areCut: boolean): Flowing {
    this.#chosenShare = undefined;
    if (!x.isChosen) return this.#gather(x, elements);
    return areCut ? { ...x, buffers: [buffer(elements)] } : x;
  }

  get #share(): number {
    return this.#chosenShare ?? 1;
  }

  #gather(x: Flowing, elements: number): Flowing {
    const known = this.#chosen.get(x);
    if (known) return known;
    const rows = {
      ...this.#computed([x], { elements, work: workOf.move, cannotBeKept: true }),
      isChosen: true,
    };
    this.#chosen.set(x, rows);
    return rows;
  }

  /** As it is read by something that depends on what is trained, where rows are chosen. */
  #chosenOf(x: Flowing): Flowing {
    return this.#chosenShare === undefined || x.isChosen ? x : this.#gather(x, x.elements * this.#share);
  }

  /** Something that depends on what is trained reads it. */
  reads({ frozen }: Flowing): void {
    if (frozen) frozen.isRead = true;
  }

  /** An operation on `operands`: what it gives depends on something trained if they do, and else is frozen if they are. */
  #computed(
    operands: readonly Flowing[],
    { elements, work, product = 0, part = "frozen", isTrained = false, cannotBeKept = false }: Computation,
  ): Flowing {
    const isNeeded = isTrained || operands.some((x) => x.isNeeded);
    const frozen = operands.flatMap((x) => x.frozen ?? []);
    if (isNeeded || frozen.length < operands.length) {
      for (const one of frozen) one.isRead = true;
      return { isNeeded, buffers: [buffer(elements)], elements, frozen: undefined, isChosen: false };
    }
    const made: Frozen = {
      ...{ part, product, operands: frozen, isRead: false },
      work: product + work * elements,
      bytes: cannotBeKept || elements === 0 ? Number.POSITIVE_INFINITY : 4 * elements,
    };
    this.account.frozen.push(made);
    return { isNeeded, buffers: [buffer(elements)], elements, frozen: made, isChosen: false };
  }

  /** All of this tower's forward pass so far is what no adapter changes. */
  markFrozen(): void {
    this.account.frozenForward = sumFlops(this.account.forward);
  }

  keep({ buffers }: Pick<Flowing, "buffers">): void {
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
    this.#sees(4 * atOnce * active * unit.outputs);
    /** Of the rows, those of its own product, and those of an adapter's. */
    const isDependent = x.isNeeded || weight || other;
    const [own, low] = [isDependent ? this.#share : 1, this.#share];
    const all = 2 * rows * active * unit.weights;
    const product = all * own;
    /** Per rank; an expert's adapter sees its share of the positions. */
    const share = (rows * low * active) / unit.experts;
    const perRank = 2 * share * rank;
    const trainedPart = weight && part === "frozen" ? "trained" : part;
    forward[trainedPart] += product;
    forward.trained += perRank * (unit.factorA + unit.factorB);
    if (x.isNeeded) backward[trainedPart] += product * work.input;
    else this.account.stopped += all * low * work.input;
    const read = isDependent || rank > 0 ? this.#chosenOf(x) : x;
    if (weight) {
      backward.trained += product * work.kernel;
      this.keep(read);
    } else this.account.weightGradients += all * low * work.kernel;
    const outputs = atOnce * active * unit.outputs;
    const base = this.#computed([isDependent ? read : x], {
      ...{ elements: outputs * own, work: 0, product, part: trainedPart, isTrained: weight || other },
      cannotBeKept: part === "head",
    });
    if (rank === 0) return isDependent ? { ...base, isChosen: read.isChosen } : base;
    this.reads(read);
    const { factorA, factorB } = unit;
    backward.trained += perRank * (2 * factorB + factorA * (work.kernel + (x.isNeeded ? work.input : 0)));
    if (this.#drops) this.keep(aside(elements * low * (x.isNeeded ? 1.25 : 1)));
    else this.keep(read);
    this.keep(aside(share * rank));
    this.reads(base);
    return {
      ...this.#computed([], { elements: outputs * low, work: 0, isTrained: true }),
      isChosen: read.isChosen,
    };
  }

  /** y = W[ids] + s (A[ids]) Bᵀ: rows are copied, only the second factor multiplies. */
  lookup(unit: Unit, rows: number): Flowing {
    const { rank, weight, other } = this.#trainedOf(unit);
    const low = 2 * rows * rank * unit.factorB;
    this.account.forward.trained += low;
    this.account.backward.trained += 2 * low;
    if (rank > 0) this.keep(aside(rows * rank));
    return this.#computed([given], {
      ...{ elements: rows * unit.outputs, work: workOf.move, cannotBeKept: true },
      isTrained: rank > 0 || weight || other,
    });
  }

  #sees(bytes: number): void {
    if (bytes > this.largestBytes) this.largestBytes = bytes;
  }

  /** x / deviation · w: its gradient needs x, and its output is computed from x again. */
  norm(x: Flowing, trained?: "weight" | "bias"): Flowing {
    const isNeeded = x.isNeeded || trained !== undefined;
    const read = isNeeded ? this.#chosenOf(x) : x;
    // the gradient of a bias reads nothing
    if (x.isNeeded || trained === "weight") this.keep(read);
    return this.#again([read], { buffers: read.buffers, work: 2 * workOf.function, isTrained: isNeeded });
  }

  /** What is computed from kept numbers again, rather than kept itself. */
  #again(
    operands: readonly [Flowing, ...Flowing[]],
    { buffers, ...computation }: Pick<Flowing, "buffers"> & Omit<Computation, "elements">,
  ): Flowing {
    const [{ elements, isChosen }] = operands;
    return { ...this.#computed(operands, { elements, ...computation }), buffers, isChosen };
  }

  /** The model's own dropout with probability p: its mask, of a byte each, stays for the gradient. */
  drop(x: Flowing, p: number, elements: number): Flowing {
    if (p === 0) return x;
    this.reads(x);
    const left = x.isChosen ? elements * this.#share : elements;
    if (x.isNeeded) this.keep(aside(left / 4));
    return { ...x, buffers: [buffer(left)], elements: left, frozen: undefined };
  }

  /** Left out at random, for whole examples. */
  dropPath(x: Flowing): Flowing {
    this.reads(x);
    return { ...x, frozen: undefined };
  }

  /** act(x): as a norm. */
  activation(x: Flowing): Flowing {
    return this.norm(x);
  }

  /** act(gate) · up, computed again from its two factors. */
  gated(gate: Flowing, up: Flowing): Flowing {
    const isNeeded = gate.isNeeded || up.isNeeded;
    const [a, b] = isNeeded ? [this.#chosenOf(gate), this.#chosenOf(up)] : [gate, up];
    if (isNeeded) this.keep(a);
    if (gate.isNeeded) this.keep(b);
    return this.#again([a, b], { buffers: [...a.buffers, ...b.buffers], work: 4 * workOf.function });
  }

  /**
   * softmax(q kᵀ) v. Every product with something that depends on what is trained has one product backward for each
   * such operand; the weights of attention themselves depend on it if queries or keys do.
   */
  attention(
    { q: query, k: key, v: value }: { q: Flowing; k: Flowing; v: Flowing },
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
      isFixed = false,
    }: AttentionShape,
  ): Flowing {
    const [q, k, v] = [query.isNeeded, key.isNeeded, value.isNeeded];
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
    if (dropout === 0 ? p || v : p) this.keep(aside(weights));
    if (dropout > 0 && p) this.keep(aside(weights / 4));
    if (dropout > 0 && v) this.keep(aside(weights));
    if (k) this.keep(aside(examples * queries * width));
    if (q) this.keep(aside(examples * keys * keyWidth));
    if (p) this.keep(aside(examples * keys * keyWidth));
    if (hasHeadNorms && q) this.keep(aside(examples * queries * width));
    if (hasHeadNorms && k) this.keep(aside(examples * keys * keyWidth));
    if (p && angles !== undefined) this.keep({ buffers: [angles] });
    const scored = this.#computed([query, key], {
      ...{ elements: weights, work: workOf.move + workOf.function, product: scores, part: "attention" },
      cannotBeKept: !isFixed,
    });
    if (dropout > 0) this.reads(scored);
    return this.#computed([dropout > 0 ? { ...scored, frozen: undefined } : scored, value], {
      ...{
        elements: examples * queries * valueWidth,
        work: workOf.move,
        product: weighted,
        part: "attention",
      },
    });
  }

  /** A sum: nothing to keep for its own gradient. */
  add(a: Flowing, b: Flowing, elements: number): Flowing {
    return this.made([a, b], elements);
  }

  /** What is made of others element by element, or by moving them. */
  made(operands: readonly Flowing[], elements: number): Flowing {
    const isChosen = this.#chosenShare !== undefined && operands.some(({ isNeeded }) => isNeeded);
    const count = isChosen ? elements * this.#share : elements;
    return { ...this.#computed(operands, { elements: count, work: workOf.move }), isChosen };
  }
}

type Computation = {
  readonly elements: number;
  /** Of an element, besides products. */
  readonly work: number;
  readonly product?: number;
  readonly part?: keyof Flops;
  /** Something in it is trained. */
  readonly isTrained?: boolean;
  /** Where an example's part cannot be cut out. */
  readonly cannotBeKept?: boolean;
};

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
  /** The numbers of queries and keys are the same for every example. */
  readonly isFixed?: boolean;
  /** Probability of the model's own dropout of attention weights. */
  readonly dropout?: number;
};

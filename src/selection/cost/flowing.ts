import type { Frozen } from "./frozen.ts";

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
  readonly elements: number;
  /** Undefined for what is not the same in every epoch: it depends on something trained, or on dropout. */
  readonly frozen: Frozen | undefined;
  /** Computed at labelled rows alone. */
  readonly isChosen: boolean;
};

/** A buffer of float32 numbers. */
export const buffer = (elements: number): Buffer => ({ bytes: 4 * elements, isKept: false });

/** What a batch is before anything has been computed. */
export const given: Flowing = {
  ...{ isNeeded: false, buffers: [], elements: 0, isChosen: false },
  frozen: {
    part: "frozen",
    product: 0,
    work: 0,
    bytes: Number.POSITIVE_INFINITY,
    operands: [],
    isRead: false,
  },
};

/** What only the backward pass reads. */
export const aside = (elements: number): Pick<Flowing, "buffers"> => ({ buffers: [buffer(elements)] });

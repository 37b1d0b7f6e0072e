import type { Frozen } from "./frozen.ts";

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
  /** What no adapter changes, in the order in which it is computed. */
  readonly frozen: Frozen[];
};

const noFlops = (): Flops => ({ frozen: 0, trained: 0, attention: 0, head: 0 });

export const newAccount = (): Account => ({
  forward: noFlops(),
  backward: noFlops(),
  stopped: 0,
  weightGradients: 0,
  frozenForward: 0,
  keptBytes: 0,
  frozen: [],
});

export const sumFlops = ({ frozen, trained, attention, head }: Flops): number =>
  frozen + trained + attention + head;

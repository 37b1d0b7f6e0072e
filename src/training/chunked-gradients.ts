import { dependents, op, pullBack, reachable, type Value } from "../graph/index.ts";
import type { LabelledLoss } from "../models/index.ts";

/** A loss, and its cotangents for the rows it is computed from and for parameters: undefined for what it does not depend on. */
export type LossGradients = {
  readonly loss: Value;
  readonly rows: Value | undefined;
  readonly parameters: readonly (Value | undefined)[];
};

/**
 * The loss and its gradients chunk by chunk: a chunk's logits are computed, what is wanted of them is derived, and only then are those
 * of the next chunk computed, so that the logits of one chunk at a time are in memory. Nothing is computed twice for that: the
 * cotangent of a log probability is -loss_scale, whatever the other chunks are.
 * `rows` are those of the loss, maybe computed in another way.
 */
export function chunkedGradients(
  loss: LabelledLoss,
  rows: Value,
  parameters: readonly Value[],
): LossGradients {
  const isAdapted = dependents(reachable([rows]), parameters).has(rows);
  const isCut = loss.chunks.length > 1;
  const logProbabilities: Value[] = [];
  const ofRows: (Value | undefined)[] = [];
  let sums: (Value | undefined)[] = parameters.map(() => undefined);
  let earlier: Value[] = [];
  for (const chunk of loss.chunks) {
    const some = loss.rowsOf(chunk, op.after(rows, ...earlier));
    const values = loss.logProbabilities(some, chunk);
    // The logits go into these values and into the gradients: the values first.
    const slope = op.expand(op.neg(loss.scale), values.shape);
    const given = new Map([[values, isCut ? op.after(slope, values) : slope]]);
    const [ofSome, ...slopes] = pullBack(given, [some, ...parameters]);
    logProbabilities.push(values);
    ofRows.push(isAdapted ? ofSome : undefined);
    sums = sums.map((sum, i) => {
      const more = slopes[i];
      return sum && more ? op.add(sum, more) : (sum ?? more);
    });
    earlier = [ofRows.at(-1), ...sums].filter((value) => value !== undefined);
  }
  return {
    loss: loss.sum(logProbabilities),
    rows: ofRows.every((value) => value !== undefined) ? op.concat(ofRows, 0) : undefined,
    parameters: sums,
  };
}

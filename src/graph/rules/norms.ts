import * as op from "../ops/build.ts";
import type { Value } from "../value.ts";
import { type RuleFor, zero } from "./rule.ts";

/**
 * (mean x² + ε)^-½ over the last axis. Computed here rather than taken from the norms: the second output of
 * SimplifiedLayerNormalization is the mean on WebGPU and this on the CPU.
 */
const inverseDeviation = (x: Value, epsilon: number): Value =>
  op.reciprocal(op.sqrt(op.add(op.reduceMean(op.mul(x, x)), epsilon)));

// y = w x r with r = (mean x² + ε)^-½, so with g = dy w: dx = r g - x r³ mean(g x), dw = Σ dy x r. Of whole passes over
// the rows as few as can be.
export const rmsRule: RuleFor<"SimplifiedLayerNormalization"> = ({
  inputs: [x, w],
  attributes: { epsilon },
  dy,
}) => {
  const r = inverseDeviation(x, epsilon);
  const g = op.mul(dy, w);
  const along = op.mul(op.reduceMean(op.mul(g, x)), op.mul(r, op.mul(r, r)));
  return [op.sub(op.mul(g, r), op.mul(x, along)), op.mul(op.mul(dy, x), r)];
};

// y = w n + b with n = c r, c = x - mean x and r = (mean c² + ε)^-½, so with g = dy w:
// dx = r (g - mean g - n mean(g n)), dw = Σ dy n, db = Σ dy.
export const layerNormRule: RuleFor<"LayerNormalization"> = ({
  inputs: [x, w, b],
  attributes: { epsilon },
  dy,
}) => {
  const c = op.sub(x, op.reduceMean(x));
  const r = inverseDeviation(c, epsilon);
  const n = op.mul(c, r);
  const g = op.mul(dy, w);
  const along = op.mul(n, op.reduceMean(op.mul(g, n)));
  return [op.mul(r, op.sub(op.sub(g, op.reduceMean(g)), along)), op.mul(dy, n), b ? dy : zero];
};

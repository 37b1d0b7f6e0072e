import type { Value } from "../graph/index.ts";
import type { Engine, Feeds } from "../runtime/index.ts";
import { decide, type LayerDecision } from "./decision.ts";
import { factorsOf } from "./factors.ts";
import { Probe, type ProductErrors } from "./probe.ts";
import type { QuantizationReport, QuantizedLayer } from "./quantize.ts";

/** Outliers are kept apart if that takes the error down to this part of what it was. */
const WORTHWHILE = 0.7;

export type CheckOptions = {
  readonly engine: Engine;
  /** What training computes, as a graph without dropout: the loss, and the gradients of what is trained. */
  readonly values: readonly Value[];
  /** What the graph reads: a batch, and the parameters that are fed. */
  readonly feeds: Feeds;
  /** What rounding activations or gradients may cost a layer's products, as ‖y - ŷ‖ / ‖y‖. */
  readonly maxError?: number;
};

/** What rounding costs a layer's products, and what follows from it. */
export type Verdict = LayerDecision & {
  /** Error of the forward product by rounding its input, ‖y - ŷ‖ / ‖y‖, with the outliers kept apart. */
  readonly forwardError: number;
  /** Error of the backward product by rounding the gradient of its output; undefined where training needs no such product. */
  readonly backwardError?: number | undefined;
};

/** How a layer's products fare with the activations and gradients of a batch. */
export type CheckedLayer = QuantizedLayer & Verdict;

/**
 * Runs a batch through the model and compares each quantised product that training needs, forward and backward, with the product of
 * the same weight in float32, for some rows of the batch. Where a few input channels dwarf the others, so that rounding wipes these
 * out, they are kept apart. In a direction in which the error is still too large nothing but the weight is rounded, and a layer in
 * which all are takes its weight back. Errors of the weights themselves are in the report, and all there is of weights in 4 bits,
 * whose products round nothing else. A device that multiplies with the weights that the codes stand for rounds nothing, and all is
 * well there. Verdicts on codes that lie in the cache are kept with them.
 * @throws CheckpointError if weights cannot be read, RuntimeFailure if ONNX Runtime fails.
 */
export async function checkProducts(
  { quantized }: QuantizationReport,
  { engine, values, feeds, maxError = 0.05 }: CheckOptions,
): Promise<CheckedLayer[]> {
  const rounding = quantized.filter(
    ({ linear: { quantized: weight } }) => weight && (weight.rounded.forward || weight.rounded.backward),
  );
  const [first] = rounding;
  if (!first) return [];
  const options = { engine, values, feeds, maxError };
  const judge = (): Promise<Verdicts> => judgeAll(rounding, options);
  const { path: file } = first.linear.quantized!.codes.source;
  const verdicts = file
    ? await (await import("./kept/node.ts")).keptVerdicts(file, options, judge)
    : await judge();
  const checked: CheckedLayer[] = [];
  for (const layer of rounding) {
    const verdict = verdicts[layer.path];
    if (!verdict) continue;
    await decide(layer, verdict);
    checked.push({ ...layer, ...verdict });
  }
  return checked;
}

export type Verdicts = Readonly<Record<string, Verdict>>;

/** Of each layer that the graph has products of, by its path. */
async function judgeAll(
  layers: readonly QuantizedLayer[],
  { engine, values, feeds, maxError }: Required<CheckOptions>,
): Promise<Verdicts> {
  const factors = await factorsOf(values, { engine, feeds });
  const probe = new Probe(engine);
  const waiting = layers.filter(({ linear }) => factors.has(linear.quantized!.codes));
  const verdicts: Record<string, Verdict> = {};
  const judgeWaiting = async (): Promise<void> => {
    for (let layer = waiting.shift(); layer; layer = waiting.shift()) {
      const { quantized: weight } = layer.linear;
      verdicts[layer.path] = judge(await probe.errorsOf(weight!, factors.get(weight!.codes)!), maxError);
    }
  };
  try {
    // One layer's codes are read while the engine works on another's.
    await Promise.all([judgeWaiting(), judgeWaiting()]);
  } finally {
    await probe.dispose();
  }
  return verdicts;
}

function judge({ forward, backward }: ProductErrors, maxError: number): Verdict {
  const apart = forward !== undefined && forward.errorWithoutFar < WORTHWHILE * forward.error;
  const forwardError = forward ? (apart ? forward.errorWithoutFar : forward.error) : 0;
  const rounded = {
    forward: forwardError <= maxError,
    backward: backward === undefined || backward.error <= maxError,
  };
  return {
    forwardError,
    ...(backward && { backwardError: backward.error }),
    outliers: apart && rounded.forward ? forward.far : [],
    rounded,
    quantized: rounded.forward || (backward !== undefined && rounded.backward),
  };
}

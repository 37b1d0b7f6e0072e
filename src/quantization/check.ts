import type { Value } from "../graph/index.ts";
import type { Engine, Feeds } from "../runtime/index.ts";
import { columnsOf } from "./encode.ts";
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

/** How a layer's products fare with the activations and gradients of a batch. */
export type CheckedLayer = QuantizedLayer & {
  /** Error of the forward product by rounding its input, ‖y - ŷ‖ / ‖y‖, with the outliers kept apart. */
  readonly forwardError: number;
  /** Error of the backward product by rounding the gradient of its output; undefined where training needs no such product. */
  readonly backwardError: number | undefined;
  /** Input channels that are kept apart, in float32. */
  readonly outliers: readonly number[];
  /** Directions in which the product stays one of integers; in the other it is one of float32 with the weight's codes. */
  readonly rounded: { readonly forward: boolean; readonly backward: boolean };
  /** False if the layer went back to its weight, as all its products err too much. */
  readonly quantized: boolean;
};

/**
 * Runs a batch through the model and compares each quantised product that training needs, forward and backward, with the product of
 * the same weight in float32, for some rows of the batch. Where a few input channels dwarf the others, so that rounding wipes these
 * out, they are kept apart. In a direction in which the error is still too large nothing but the weight is rounded, and a layer in
 * which all are takes its weight back. Errors of the weights themselves are in the report, and all there is of weights in 4 bits,
 * whose products round nothing else. A device that multiplies with the weights that the codes stand for rounds nothing, and all is
 * well there.
 * @throws CheckpointError if weights cannot be read, RuntimeFailure if ONNX Runtime fails.
 */
export async function checkProducts(
  { quantized }: QuantizationReport,
  { engine, values, feeds, maxError = 0.05 }: CheckOptions,
): Promise<CheckedLayer[]> {
  const rounding = quantized.filter(
    ({ linear: { quantized: weight } }) => weight && (weight.rounded.forward || weight.rounded.backward),
  );
  if (rounding.length === 0) return [];
  const factors = await factorsOf(values, { engine, feeds });
  const probe = new Probe(engine);
  const waiting = rounding.filter(({ linear }) => factors.has(linear.quantized!.codes));
  const checked = new Map<QuantizedLayer, CheckedLayer>();
  const checkWaiting = async (): Promise<void> => {
    for (let layer = waiting.shift(); layer; layer = waiting.shift()) {
      const { quantized: weight } = layer.linear;
      const verdict = judge(await probe.errorsOf(weight!, factors.get(weight!.codes)!), maxError);
      await apply(layer, verdict);
      checked.set(layer, { ...layer, ...verdict });
    }
  };
  // One layer's codes are read while the engine works on another's.
  await Promise.all([checkWaiting(), checkWaiting()]);
  await probe.dispose();
  return rounding.flatMap((layer) => checked.get(layer) ?? []);
}

type Verdict = Omit<CheckedLayer, keyof QuantizedLayer>;

function judge({ forward, backward }: ProductErrors, maxError: number): Verdict {
  const apart = forward !== undefined && forward.errorWithoutFar < WORTHWHILE * forward.error;
  const forwardError = forward ? (apart ? forward.errorWithoutFar : forward.error) : 0;
  const rounded = {
    forward: forwardError <= maxError,
    backward: backward === undefined || backward.error <= maxError,
  };
  return {
    forwardError,
    backwardError: backward?.error,
    outliers: apart && rounded.forward ? forward.far : [],
    rounded,
    quantized: rounded.forward || (backward !== undefined && rounded.backward),
  };
}

async function apply({ linear }: QuantizedLayer, { rounded, outliers, quantized }: Verdict): Promise<void> {
  linear.quantized = quantized
    ? {
        ...linear.quantized!,
        rounded,
        ...(outliers.length > 0 && {
          outliers: { channels: outliers, columns: await columnsOf(linear.weight, outliers) },
        }),
      }
    : undefined;
}

import { gradients, type Node, op, reachable, type Value, type WeightStorage } from "../graph/index.ts";
import type { Engine, Feeds } from "../runtime/index.ts";
import { columnsOf } from "./encode.ts";
import type { QuantizationReport, QuantizedLayer } from "./quantize.ts";

/** A channel is an outlier if it reaches this many times as far as channels do on average. */
const OUTLIER = 6;
/** Outliers are kept apart if that takes the error down to this part of what it was. */
const WORTHWHILE = 0.7;

export type CheckOptions = {
  readonly engine: Engine;
  /** Loss of the model with the quantised weights, as a graph; without dropout. */
  readonly loss: Value;
  /** What the graph reads: a batch, and the parameters that are fed. */
  readonly feeds: Feeds;
  /** What rounding activations or gradients may cost a layer's products, as ‖y - ŷ‖ / ‖y‖. */
  readonly maxError?: number;
};

/** How a layer's products fare with the activations and gradients of a batch. */
export type CheckedLayer = QuantizedLayer & {
  /** Error of the forward product by rounding its input, ‖y - ŷ‖ / ‖y‖, with the outliers kept apart. */
  readonly forwardError: number;
  /** Error of the backward product by rounding the gradient of its output. */
  readonly backwardError: number;
  /** Input channels that are kept apart, in float32. */
  readonly outliers: readonly number[];
  /** Directions in which the product stays one of integers; in the other it is one of float32 with the weight's codes. */
  readonly rounded: { readonly forward: boolean; readonly backward: boolean };
  /** False if the layer went back to its weight, as both errors are too large. */
  readonly quantized: boolean;
};

/**
 * Runs a batch through the model and compares each quantised product, forward and backward, with the product of the same weight
 * in float32. Where a few input channels dwarf the others, so that rounding wipes these out, they are kept apart. In a direction
 * in which the error is still too large nothing but the weight is rounded, and a layer in which both are takes its weight back.
 * Errors of the weights themselves are in the report, and all there is of weights in 4 bits, whose products round nothing else.
 * A device that multiplies with the weights that the codes stand for rounds nothing, and all is well there.
 * @throws RuntimeFailure if ONNX Runtime fails.
 */
export async function checkProducts(
  { quantized }: QuantizationReport,
  { engine, loss, feeds, maxError = 0.05 }: CheckOptions,
): Promise<CheckedLayer[]> {
  const products = productsOf(loss);
  const layers = quantized.filter(
    ({ linear: { quantized: weight } }) =>
      weight && (weight.rounded.forward || weight.rounded.backward) && products.has(weight.codes),
  );
  if (layers.length === 0) return [];
  const values = layers.map(({ linear }) => products.get(linear.quantized!.codes)!);
  const cotangents = gradients(
    loss,
    values.map(({ y }) => y),
  );
  const outputs: Record<string, Value> = {};
  for (const [i, { node }] of values.entries())
    for (const [name, value] of Object.entries(probesOf(node, cotangents[i]!)))
      outputs[`${name} ${i}`] = value;
  const session = await engine.createSession(outputs);
  const { outputs: measured } = await session.run(feeds);
  await session.dispose();

  const numbers = (name: string, i: number): Float32Array => measured[`${name} ${i}`]!.data as Float32Array;
  const checked: CheckedLayer[] = [];
  for (const [i, layer] of layers.entries()) {
    const { linear } = layer;
    const [plain, apart, backwardError] = ["forward", "apart", "backward"].map(
      (name) => numbers(name, i)[0]!,
    );
    const found = [...numbers("others", i).entries()].flatMap(([channel, kept]) =>
      kept === 0 ? [channel] : [],
    );
    const outliers = apart! < WORTHWHILE * plain! ? found : [];
    const forwardError = outliers.length > 0 ? apart! : plain!;
    const rounded = { forward: forwardError <= maxError, backward: backwardError! <= maxError };
    const isQuantized = rounded.forward || rounded.backward;
    const apartIn = rounded.forward && outliers.length > 0;
    linear.quantized = isQuantized
      ? {
          ...linear.quantized!,
          rounded,
          ...(apartIn && {
            outliers: { channels: outliers, columns: await columnsOf(linear.weight, outliers) },
          }),
        }
      : undefined;
    checked.push({
      ...layer,
      forwardError,
      backwardError: backwardError!,
      outliers: apartIn ? outliers : [],
      rounded,
      quantized: isQuantized,
    });
  }
  return checked;
}

type Product = { readonly node: Node<"QuantizedMatMul">; readonly y: Value };

/** The forward products of a graph, by their codes. */
function productsOf(loss: Value): Map<WeightStorage, Product> {
  const found = new Map<WeightStorage, Product>();
  for (const y of reachable([loss])) {
    if (y.source.kind !== "node" || y.source.node.op !== "QuantizedMatMul") continue;
    const node = y.source.node as Node<"QuantizedMatMul">;
    const { source } = node.inputs[1];
    if (source.kind === "weight") found.set(source.storage, { node, y });
  }
  return found;
}

/** Output channels that forward products are compared in: a vocabulary's many would need much memory, and say no more. */
const CHANNELS = 4096;

/** What a layer's products are measured by: x [rows, in], dy [rows, out]. */
function probesOf({ inputs: [x, codes, scales] }: Node<"QuantizedMatMul">, dy: Value): Record<string, Value> {
  const out = codes.shape[0] as number;
  const some = (value: Value): Value => (out > CHANNELS ? op.slice(value, 0, 0, CHANNELS) : value);
  const [someCodes, someScales] = [some(codes), some(scales)];
  const rounded = (rows: Value): Value => op.quantizedMatMul(rows, someCodes, someScales, { transB: true });
  const exact = (rows: Value): Value =>
    op.gemm(rows, op.dequantizedWeight(someCodes, someScales), { transB: true });
  const reach = op.reduceMax(op.abs(x), { axes: [0] }); // [1, in]
  const others = op.where(
    op.greater(reach, op.mul(op.reduceMean(reach), OUTLIER)),
    0,
    op.full(1, reach.shape),
  );
  const y = exact(x);
  const apart = op.add(rounded(op.mul(x, others)), exact(op.mul(x, op.sub(1, others))));
  const dx = op.gemm(dy, op.dequantizedWeight(codes, scales));
  return {
    others,
    forward: relativeError(rounded(x), y),
    apart: relativeError(apart, y),
    backward: relativeError(op.quantizedMatMul(dy, codes, scales, { transB: false }), dx),
  };
}

/** ‖actual - expected‖ / ‖expected‖, 0 where both are. */
function relativeError(actual: Value, expected: Value): Value {
  const size = (x: Value): Value => op.sqrt(op.reduceSum(op.mul(x, x), { axes: [0, 1], keepdims: false }));
  const whole = size(expected);
  return op.div(size(op.sub(actual, expected)), op.where(op.greater(whole, 0), whole, 1));
}

import { input, op, readStorage, symbol, type Value, type WeightStorage } from "../graph/index.ts";
import type { Engine, Session } from "../runtime/index.ts";
import { type Tensor, typedArrays } from "../tensor/index.ts";
import type { Factors } from "./factors.ts";

/** A channel is an outlier if it reaches this many times as far as channels do on average. */
const OUTLIER = 6;

/** Output channels that forward products are compared in: a vocabulary's many would need much memory, and say no more. */
const CHANNELS = 4096;

/** Input channels that a vocabulary's backward product is compared in. */
const COLUMNS = 64;

/** Errors of a weight's products, ‖y - ŷ‖ / ‖y‖, that come of rounding what it is multiplied with. */
export type ProductErrors = {
  readonly forward?: {
    readonly error: number;
    /** Input channels that reach far. */
    readonly far: readonly number[];
    /** The error when these are left out of the rounded product. */
    readonly errorWithoutFar: number;
  };
  readonly backward?: { readonly error: number };
};

/**
 * Compares rounded products with float32 ones, as the engine computes both. Layers of one shape share a program, into which codes
 * are fed: so only one layer's are in memory, and few small programs are loaded.
 */
export class Probe {
  private readonly engine: Engine;
  private readonly sessions = new Map<string, Promise<Session>>();

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** @throws CheckpointError if codes cannot be read, RuntimeFailure if ONNX Runtime fails. */
  async errorsOf(weight: StoredCodes, { forward, backward }: Factors): Promise<ProductErrors> {
    const [out] = weight.codes.shape as readonly [number, number];
    // Forward needs the first rows of what backward needs all of.
    const { codes, scales } = await read(weight, backward ? out : Math.min(out, CHANNELS));
    return {
      ...(forward && { forward: await this.forwardErrors(forward, firstRows(codes), firstRows(scales)) }),
      ...(backward && { backward: { error: await this.backwardError(backward, codes, scales) } }),
    };
  }

  async dispose(): Promise<void> {
    for (const session of this.sessions.values()) await (await session).dispose();
  }

  private async forwardErrors(x: Tensor, codes: Codes, scales: Tensor) {
    const outputs = await this.run("forward", forwardProbe, { x, codes, scales });
    const [error, errorWithoutFar] = ["error", "errorWithoutFar"].map((name) => outputs[name]!.data[0]);
    const near = outputs["near"]!.data as Float32Array;
    const far = [...near.entries()].flatMap(([channel, kept]) => (kept === 0 ? [channel] : []));
    return { error: error as number, errorWithoutFar: errorWithoutFar as number, far };
  }

  private async backwardError(dy: Tensor, codes: Codes, scales: Tensor): Promise<number> {
    const { error } = await this.run("backward", backwardProbe, { x: dy, codes, scales });
    return error!.data[0] as number;
  }

  private async run(
    name: string,
    build: (x: Value, codes: Value, scales: Value) => Record<string, Value>,
    feeds: { readonly x: Tensor; readonly codes: Codes; readonly scales: Tensor },
  ): Promise<Readonly<Record<string, Tensor>>> {
    const { x, codes, scales } = feeds;
    const key = `${name} ${codes.shape}`;
    const session =
      this.sessions.get(key) ??
      this.engine.createSession(
        build(
          input("x", "float32", [symbol("rows"), x.shape[1]!]),
          input("codes", codes.dtype, codes.shape),
          input("scales", "float32", scales.shape),
        ),
        { optimize: false },
      );
    this.sessions.set(key, session);
    return (await (await session).run(feeds)).outputs;
  }
}

type Codes = Tensor<"int8">;
type StoredCodes = { readonly codes: WeightStorage; readonly scales: WeightStorage };

/** The first rows of a weight in 8 bits. */
async function read({ codes, scales }: StoredCodes, rows: number) {
  const inner = codes.shape[1]!;
  const [codeBytes, scaleBytes] = await Promise.all([
    readStorage({ ...codes, byteLength: rows * inner }),
    readStorage({ ...scales, byteLength: rows * 4 }),
  ]);
  return {
    codes: viewOf("int8", codeBytes, [rows, inner]),
    scales: viewOf("float32", scaleBytes, [rows]),
  };
}

function viewOf<D extends "int8" | "float32">(
  dtype: D,
  bytes: Uint8Array,
  shape: readonly number[],
): Tensor<D> {
  const Values = typedArrays[dtype];
  const data = new Values(bytes.buffer, bytes.byteOffset, bytes.byteLength / Values.BYTES_PER_ELEMENT);
  return { dtype, shape, data } as Tensor<D>;
}

function firstRows<T extends Tensor>(tensor: T): T {
  const [rows, ...rest] = tensor.shape as [number, ...number[]];
  if (rows <= CHANNELS) return tensor;
  const length = (tensor.data.length / rows) * CHANNELS;
  return { ...tensor, shape: [CHANNELS, ...rest], data: tensor.data.subarray(0, length) };
}

/** x [rows, in], codes [out, in]. */
function forwardProbe(x: Value, codes: Value, scales: Value): Record<string, Value> {
  const rounded = (rows: Value): Value => op.quantizedMatMul(rows, codes, scales, { transB: true });
  const weight = op.dequantizedWeight(codes, scales);
  const exact = (rows: Value): Value => op.gemm(rows, weight, { transB: true });
  const reach = op.reduceMax(op.abs(x), { axes: [0] }); // [1, in]
  const isFar = op.greater(reach, op.mul(op.reduceMean(reach), OUTLIER));
  const near = op.where(isFar, 0, op.full(1, reach.shape));
  const nearX = op.mul(x, near);
  const y = exact(x);
  const apart = op.add(rounded(nearX), exact(op.sub(x, nearX)));
  return {
    near,
    error: relativeError(rounded(x), y),
    errorWithoutFar: relativeError(apart, y),
  };
}

/** dy [rows, out], codes [out, in]. */
function backwardProbe(dy: Value, all: Value, scales: Value): Record<string, Value> {
  const [out, inner] = all.shape as [number, number];
  const codes = out > CHANNELS && inner > COLUMNS ? op.slice(all, 1, 0, COLUMNS) : all;
  const dx = op.gemm(dy, op.dequantizedWeight(codes, scales));
  return { error: relativeError(op.quantizedMatMul(dy, codes, scales, { transB: false }), dx) };
}

/** ‖actual - expected‖ / ‖expected‖, 0 where both are. */
function relativeError(actual: Value, expected: Value): Value {
  const size = (x: Value): Value => op.sqrt(op.reduceSum(op.mul(x, x), { axes: [0, 1], keepdims: false }));
  const whole = size(expected);
  return op.div(size(op.sub(actual, expected)), op.where(op.greater(whole, 0), whole, 1));
}

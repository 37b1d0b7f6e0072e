import { afterAll, beforeAll } from "vitest";
import type { Value } from "../../src/graph/index.ts";
import type { Engine, EngineOptions, Feeds } from "../../src/runtime/index.ts";
import { createEngine } from "../../src/runtime/node.ts";
import { type DType, numel, type Tensor, tensor, typedArrays } from "../../src/tensor/index.ts";

/** One engine for all tests of a file; call it where tests are defined, the result inside them. */
export function sharedEngine(options?: EngineOptions): () => Engine {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createEngine(options);
  });
  afterAll(() => engine?.dispose());
  return () => engine;
}

/** The values of a graph's outputs, computed by ONNX Runtime. */
export async function evaluate(
  engine: Engine,
  outputs: Readonly<Record<string, Value>>,
  feeds: Feeds = {},
): Promise<Record<string, Tensor>> {
  const session = await engine.createSession(outputs);
  try {
    return { ...(await session.run(feeds)).outputs };
  } finally {
    await session.dispose();
  }
}

/** A tensor of plain numbers. */
export function tensorOf(values: readonly number[], shape: readonly number[], dtype: DType): Tensor {
  const array = new typedArrays[dtype](values.length);
  for (const [i, value] of values.entries())
    (array as unknown as unknown[])[i] = array instanceof BigInt64Array ? BigInt(value) : value;
  return tensor(dtype, shape, array);
}

/** A tensor's values as plain numbers. */
export const numbersOf = ({ data }: Tensor): number[] =>
  Array.from(data as Iterable<number | bigint>, Number);

/** Numbers that look random but are the same in every run, in [low, high). */
export class Numbers {
  private state: number;

  constructor(seed: number) {
    this.state = seed;
  }

  /** The generator mulberry32. */
  next(low = 0, high = 1): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return low + (((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * (high - low);
  }

  fill(shape: readonly number[], low = -1, high = 1): number[] {
    return Array.from({ length: numel(shape) }, () => this.next(low, high));
  }
}

import { dimValue, type Node, op, reachable, type Value, type WeightStorage } from "../graph/index.ts";
import type { Engine, Feeds } from "../runtime/index.ts";
import type { Tensor } from "../tensor/index.ts";

/** Rows that stand for all rows of a factor. */
const ROWS = 64;

/** What the products with a weight multiply it with, some rows of it: x [rows, in] forward, dy [rows, out] backward. */
export type Factors = { readonly forward?: Tensor<"float32">; readonly backward?: Tensor<"float32"> };

/**
 * Runs a graph once and keeps some rows of every left factor of a quantised product, by the weight's codes. A direction that the
 * graph has no product for is missing, as the backward one is below the lowest adapter.
 * @throws RuntimeFailure if ONNX Runtime fails.
 */
export async function factorsOf(
  values: readonly Value[],
  { engine, feeds }: { engine: Engine; feeds: Feeds },
): Promise<Map<WeightStorage, Factors>> {
  const found = leftFactors(values);
  const sampled = new Map<Value, Value>();
  const sample = sampling();
  for (const { x } of found) if (!sampled.has(x)) sampled.set(x, sample(x));
  const names = new Map([...sampled.keys()].map((x, i) => [x, `factor ${i}`]));
  const outputs = Object.fromEntries([...sampled].map(([x, rows]) => [names.get(x)!, rows]));
  const session = await engine.createSession(outputs, { optimize: false });
  const { outputs: rows } = await session.run(feeds);
  await session.dispose();

  const factors = new Map<WeightStorage, { forward?: Tensor<"float32">; backward?: Tensor<"float32"> }>();
  for (const { codes, direction, x } of found) {
    const known = factors.get(codes) ?? {};
    factors.set(codes, known);
    const more = rows[names.get(x)!] as Tensor<"float32">;
    known[direction] = known[direction] ? joined(known[direction], more) : more;
  }
  return factors;
}

type LeftFactor = {
  readonly codes: WeightStorage;
  readonly direction: keyof Factors;
  readonly x: Value;
};

function leftFactors(values: readonly Value[]): LeftFactor[] {
  const found: LeftFactor[] = [];
  for (const { source } of reachable(values)) {
    if (source.kind !== "node" || source.node.op !== "QuantizedMatMul") continue;
    const { inputs, attributes } = source.node as Node<"QuantizedMatMul">;
    const [x, codes] = inputs;
    if (codes.source.kind === "weight")
      found.push({ codes: codes.source.storage, direction: attributes.transB ? "forward" : "backward", x });
  }
  return found;
}

/** Takes rows at even distances; those of a factor that has fewer, several times. */
function sampling(): (x: Value) => Value {
  const indices = new Map<string, Value>();
  return (x) => {
    const count = x.shape[0]!;
    const known =
      indices.get(String(count)) ??
      op.cast(op.mul(op.range(0, ROWS), op.div(op.cast(dimValue(count), "float32"), ROWS)), "int64");
    indices.set(String(count), known);
    return op.gather(x, known);
  };
}

/** The rows of both. */
function joined(a: Tensor<"float32">, b: Tensor<"float32">): Tensor<"float32"> {
  const data = new Float32Array(a.data.length + b.data.length);
  data.set(a.data);
  data.set(b.data, a.data.length);
  return { dtype: "float32", shape: [a.shape[0]! + b.shape[0]!, a.shape[1]!], data };
}

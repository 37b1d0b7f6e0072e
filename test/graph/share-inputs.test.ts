import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gradients, input, nodesOf, op, shareInputs, type Value } from "../../src/graph/index.ts";
import { relativeL2 } from "../support/close.ts";
import { evaluate, Numbers, sharedEngine, tensorOf } from "../support/run-graph.ts";

const engine = sharedEngine({ threads: 1 });
const float = (name: string, shape: number[]): Value => input(name, "float32", shape);

/** Adapters on projections of one x, as q, k and v have them: Σ (x Wᵢᵀ + (x Aᵢᵀ) Bᵢᵀ)². */
function projections(ranks: readonly number[], { rows = 5, width = 4, out = 3 } = {}) {
  const x = op.relu(float("x", [rows, width]));
  const adapters = ranks.map((r, i) => ({ a: float(`a${i}`, [r, width]), b: float(`b${i}`, [out, r]) }));
  const terms = adapters.map(({ a, b }, i) => {
    const base = op.gemm(x, float(`w${i}`, [out, width]), { transB: true });
    return op.gemm(op.gemm(x, a, { transB: true }), b, { c: base, alpha: 0.5, transB: true });
  });
  const sum = terms.map((term) => op.mul(term, term)).reduce(op.add);
  const trained = [...adapters.flatMap(({ a, b }) => [a, b]), input("x", "float32", [rows, width])];
  return { loss: op.reduceSum(sum, { axes: [0, 1], keepdims: false }), trained: trained.slice(0, -1) };
}

const program = (loss: Value, trained: readonly Value[]): Record<string, Value> => ({
  loss,
  ...Object.fromEntries(gradients(loss, trained).map((slope, i) => [`gradient ${i}`, slope])),
});

const gemms = (outputs: Record<string, Value>): number =>
  nodesOf(Object.values(outputs)).filter((node) => node.op === "Gemm").length;

describe("products with one input", () => {
  test("are one, forward and backward, with the same results", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 5 }),
        fc.nat(),
        async (ranks, seed) => {
          const { loss, trained } = projections(ranks);
          const plain = program(loss, trained);
          const shared = program(shareInputs({ loss }, trained)["loss"]!, trained);
          // x Aᵀ and dA of each but one.
          expect(gemms(plain) - gemms(shared)).toBe(2 * (ranks.length - 1));
          const numbers = new Numbers(seed);
          const feeds = Object.fromEntries(
            [...new Set(nodesOf(Object.values(plain)).flatMap(({ inputs }) => inputs as Value[]))].flatMap(
              (value) =>
                value?.source.kind === "input"
                  ? [
                      [
                        value.source.name,
                        tensorOf(
                          numbers.fill(value.shape as number[], -1, 1),
                          value.shape as number[],
                          "float32",
                        ),
                      ],
                    ]
                  : [],
            ),
          );
          const [before, after] = [
            await evaluate(engine(), plain, feeds),
            await evaluate(engine(), shared, feeds),
          ];
          for (const name of Object.keys(plain))
            expect(
              relativeL2(after[name]!.data as Float32Array, before[name]!.data as Float32Array),
              name,
            ).toBeLessThan(1e-5);
        },
      ),
      { numRuns: 20 },
    );
  });

  test("in one layer above another: each layer is computed once", () => {
    const layer = (x: Value, i: number): Value => {
      const low = [0, 1].map((k) => op.gemm(x, float(`a${i}${k}`, [2, 4]), { transB: true }));
      return op.gemm(op.add(low[0]!, low[1]!), float(`w${i}`, [2, 4]));
    };
    const y = [0, 1, 2].reduce(layer, float("x", [3, 4]));
    const trained = nodesOf([y]).flatMap(({ inputs }) =>
      (inputs as Value[]).filter((value) => value?.source.kind === "input" && /^a/.test(value.source.name)),
    );
    expect(gemms({ y })).toBe(9);
    expect(gemms(shareInputs({ y }, trained))).toBe(6);
  });

  test("stay apart where inputs differ, or a matrix is not among those given", () => {
    const { loss, trained } = projections([2, 2]);
    expect(shareInputs({ loss }, trained.slice(0, 2))["loss"]).toBe(loss);
    const [x, y] = [float("x", [3, 4]), float("y", [3, 4])];
    const [a, b] = [float("a", [2, 4]), float("b", [2, 4])];
    const sum = op.add(op.gemm(x, a, { transB: true }), op.gemm(y, b, { transB: true }));
    expect(shareInputs({ sum }, [a, b])["sum"]).toBe(sum);
  });
});

import { type Dim, dimAdd } from "./dim.ts";
import { apply, concat, gemm, slice } from "./ops/build.ts";
import { reachable } from "./traverse.ts";
import type { Node, Value } from "./value.ts";

/** x Aᵀ for one of the matrices. */
type Product = { readonly value: Value; readonly matrix: Value };

/**
 * The same outputs with products of one x with several of the `matrices` made one: [x A₁ᵀ | x A₂ᵀ | …] = x [A₁; A₂; …]ᵀ. The adapters
 * of q, k and v read the same x, and r columns each are too few for a product to be fast; so are, if the gradient is derived from the
 * result, the sums dx = Σ dyᵢ Aᵢ and the products dAᵢ = dyᵢᵀ x, which become one each.
 */
export function shareInputs(
  outputs: Readonly<Record<string, Value>>,
  matrices: readonly Value[],
): Record<string, Value> {
  const known = new Set(matrices);
  const byInput = new Map<Value, Product[]>();
  for (const value of reachable(Object.values(outputs))) {
    if (value.source.kind !== "node" || value.source.node.op !== "Gemm") continue;
    const { inputs, attributes } = value.source.node as unknown as Node<"Gemm">;
    const [x, matrix, c] = inputs;
    const { alpha, transA, transB } = attributes;
    if (!known.has(matrix) || known.has(x) || c || alpha !== 1 || transA || !transB) continue;
    const found = byInput.get(x);
    if (found) found.push({ value, matrix });
    else byInput.set(x, [{ value, matrix }]);
  }
  const groups = new Map<Value, Group>();
  for (const [x, products] of byInput) {
    if (products.length < 2) continue;
    const group: Group = { x, products };
    for (const { value } of products) groups.set(value, group);
  }
  return groups.size === 0 ? { ...outputs } : rebuild(outputs, groups);
}

/** Products of one x. */
type Group = { readonly x: Value; readonly products: readonly Product[] };

/** The outputs with the products of each group cut out of one; what an x is computed from is rebuilt before it. */
function rebuild(
  outputs: Readonly<Record<string, Value>>,
  groups: ReadonlyMap<Value, Group>,
): Record<string, Value> {
  const replaced = new Map<Value, Value>();
  const current = (value: Value): Value => replaced.get(value) ?? value;
  for (const value of reachable(Object.values(outputs))) {
    if (value.source.kind !== "node" || replaced.has(value)) continue;
    const group = groups.get(value);
    if (group) {
      for (const [product, part] of cutOut(group, current(group.x))) replaced.set(product, part);
      continue;
    }
    const { op, inputs, attributes } = value.source.node;
    const old = inputs as readonly (Value | undefined)[];
    const renewed = old.map((x) => x && current(x));
    if (renewed.some((x, i) => x !== old[i]))
      replaced.set(value, apply(op, renewed as never, attributes as never));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, current(value)]));
}

function cutOut({ products }: Group, x: Value): [product: Value, part: Value][] {
  const matrices = products.map(({ matrix }) => matrix);
  const together = gemm(x, concat(matrices, 0), { transB: true });
  let end: Dim = 0;
  return products.map(({ value, matrix }) => {
    const start = end;
    end = dimAdd(start, matrix.shape[0]!);
    return [value, slice(together, 1, start, end)];
  });
}

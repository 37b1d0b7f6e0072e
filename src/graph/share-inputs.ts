import { type Dim, dimAdd } from "./dim.ts";
import { concat, gemm, slice } from "./ops/build.ts";
import { rewrite } from "./substitute.ts";
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
  for (const [x, products] of byInput)
    if (products.length > 1) for (const { value } of products) groups.set(value, { x, products });
  const parts = new Map<Value, Value>();
  return rewrite(outputs, (_, value, current) => {
    const group = groups.get(value);
    if (group && !parts.has(value))
      for (const [product, part] of cutOut(group, current(group.x))) parts.set(product, part);
    return parts.get(value);
  });
}

/** Products of one x. */
type Group = { readonly x: Value; readonly products: readonly Product[] };

/** The products of a group, cut out of one. */
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

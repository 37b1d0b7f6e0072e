import { GraphError } from "../errors.ts";

/**
 * A dimension: a number, or a polynomial in named symbols such as `batch`, `sequence`, `past + sequence`.
 * Shapes stay symbolic through the whole graph, so that one session serves every batch shape.
 */
export type Dim = number | SymbolicDim;
export type Shape = readonly Dim[];

/** A polynomial with integer coefficients in canonical form: monomial ("a*b", "" for 1) -> coefficient. */
export class SymbolicDim {
  readonly terms: ReadonlyMap<string, number>;
  readonly key: string;

  private constructor(terms: Map<string, number>) {
    this.terms = new Map([...terms].sort(([a], [b]) => (a < b ? -1 : 1)));
    this.key = [...this.terms]
      .map(([monomial, k]) => (monomial === "" ? `${k}` : k === 1 ? monomial : `${k}*${monomial}`))
      .join(" + ");
  }

  /** The polynomial, or a plain number where it is constant. */
  static from(terms: Map<string, number>): Dim {
    for (const [monomial, coefficient] of terms) if (coefficient === 0) terms.delete(monomial);
    if (terms.size === 0) return 0;
    const constant = terms.get("");
    return terms.size === 1 && constant !== undefined ? constant : new SymbolicDim(terms);
  }

  toString(): string {
    return this.key;
  }
}

/**
 * The symbol called `name`; equal names are equal dimensions everywhere in a graph.
 * @throws GraphError for a name that could be mistaken for a polynomial.
 */
export function symbol(name: string): Dim {
  if (!/^[A-Za-z_][\w.]*$/.test(name))
    throw new GraphError(`"${name}" cannot name a dimension: use letters, digits, "_" and ".".`, {
      code: "symbol-name",
      details: { name },
    });
  return SymbolicDim.from(new Map([[name, 1]]));
}

/** The name of a dimension that is nothing but a symbol. */
export function symbolName(dim: Dim): string | undefined {
  if (typeof dim === "number" || dim.terms.size > 1) return undefined;
  const [[monomial, k]] = [...dim.terms] as [[string, number]];
  return k === 1 && !monomial.includes("*") ? monomial : undefined;
}

const termsOf = (dim: Dim): ReadonlyMap<string, number> =>
  typeof dim === "number" ? new Map([["", dim]]) : dim.terms;

const factorsOf = (monomial: string): string[] => (monomial === "" ? [] : monomial.split("*"));

export const dimEquals = (a: Dim, b: Dim): boolean =>
  typeof a === "number" || typeof b === "number" ? a === b : a.key === b.key;

export const shapeEquals = (a: Shape, b: Shape): boolean =>
  a.length === b.length && a.every((dim, i) => dimEquals(dim, b[i]!));

export function dimAdd(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a + b;
  const sum = new Map(termsOf(a));
  for (const [monomial, k] of termsOf(b)) sum.set(monomial, (sum.get(monomial) ?? 0) + k);
  return SymbolicDim.from(sum);
}

export function dimMultiply(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a * b;
  const product = new Map<string, number>();
  for (const [left, k] of termsOf(a))
    for (const [right, l] of termsOf(b)) {
      const monomial = [...factorsOf(left), ...factorsOf(right)].sort().join("*");
      product.set(monomial, (product.get(monomial) ?? 0) + k * l);
    }
  return SymbolicDim.from(product);
}

export const dimSubtract = (a: Dim, b: Dim): Dim => dimAdd(a, dimMultiply(b, -1));

/** a / b for a divisor of one term; undefined unless the quotient is exact. */
export function dimDivide(a: Dim, b: Dim): Dim | undefined {
  const divisor = [...termsOf(b)];
  if (a === 0 && b !== 0) return 0;
  if (divisor.length !== 1 || divisor[0]![1] === 0) return undefined;
  const [monomial, k] = divisor[0]!;
  const quotient = new Map<string, number>();
  for (const [term, l] of termsOf(a)) {
    const left = factorsOf(term);
    for (const factor of factorsOf(monomial)) {
      const at = left.indexOf(factor);
      if (at < 0) return undefined;
      left.splice(at, 1);
    }
    if (l % k !== 0) return undefined;
    quotient.set(left.join("*"), l / k);
  }
  return SymbolicDim.from(quotient);
}

/**
 * ⌊symbol / divisor⌋, as a symbol of its own: of polynomials with it nothing is known but that.
 * @throws GraphError for a polynomial, and for a divisor that is no positive integer.
 */
export function dimFloorDivide(dim: Dim, divisor: number): Dim {
  const name = symbolName(dim);
  if (!Number.isInteger(divisor) || divisor < 1 || (typeof dim !== "number" && name === undefined))
    throw new GraphError(
      `Only a symbol can be divided, and by a positive integer; got ${dim} / ${divisor}.`,
      {
        code: "floor-divide",
      },
    );
  if (divisor === 1) return dim;
  return typeof dim === "number"
    ? Math.floor(dim / divisor)
    : SymbolicDim.from(new Map([[`${name}/${divisor}`, 1]]));
}

/** What a symbol of `dimFloorDivide` divides, which may be such a symbol itself, and by what; undefined for any other symbol. */
export function dividedSymbol(name: string): { readonly of: string; readonly divisor: number } | undefined {
  const at = name.lastIndexOf("/");
  return at < 0 ? undefined : { of: name.slice(0, at), divisor: Number(name.slice(at + 1)) };
}

/** Whether a quotient is in a dimension: only such a one is 0 where no symbol is. */
export const hasQuotient = (dim: Dim): boolean =>
  typeof dim !== "number" && [...dim.terms.keys()].some((monomial) => monomial.includes("/"));

/** Number of elements. */
export const dimProduct = (shape: Shape): Dim => shape.reduce<Dim>(dimMultiply, 1);

/**
 * The common dimension under ONNX (NumPy) broadcasting.
 * Distinct symbols never broadcast: whether they agree is not known before the data is.
 */
function broadcastDim(a: Dim, b: Dim): Dim | undefined {
  if (dimEquals(a, b) || b === 1) return a;
  return a === 1 ? b : undefined;
}

/** Broadcast of shapes, aligned at the last axis. @throws GraphError where they do not agree. */
export function broadcastShapes(a: Shape, b: Shape, where: string): Dim[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const left = a[i - rank + a.length] ?? 1;
    const right = b[i - rank + b.length] ?? 1;
    const dim = broadcastDim(left, right);
    if (dim === undefined)
      throw new GraphError(`${where}: shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast.`, {
        code: "shape-mismatch",
      });
    return dim;
  });
}

/** The numeric value of a dimension for known symbols. @throws GraphError for an unknown symbol. */
export function evaluateDim(dim: Dim, symbols: ReadonlyMap<string, number>): number {
  if (typeof dim === "number") return dim;
  let total = 0;
  for (const [monomial, k] of dim.terms) {
    let product = k;
    for (const factor of factorsOf(monomial)) product *= evaluateSymbol(factor, symbols);
    total += product;
  }
  return total;
}

function evaluateSymbol(name: string, symbols: ReadonlyMap<string, number>): number {
  const divided = dividedSymbol(name);
  if (divided) return Math.floor(evaluateSymbol(divided.of, symbols) / divided.divisor);
  const value = symbols.get(name);
  if (value === undefined)
    throw new GraphError(`The size of "${name}" is not known.`, { code: "unbound-symbol" });
  return value;
}

export const formatShape = (shape: Shape): string => `[${shape.map(String).join(", ")}]`;

import { GraphError } from "../../errors.ts";
import { type Dim, dividedSymbol, type Shape, type SymbolicDim, symbolName } from "../dim.ts";
import { type Encoding, encodings } from "../onnx/encoding.ts";
import { reachable } from "../traverse.ts";
import type { Value } from "../value.ts";

/** The dimensions that running a value's operator takes. */
function dimsFor({ source }: Value): readonly Dim[] {
  if (source.kind === "dim") return [source.dim];
  if (source.kind !== "node") return [];
  const { op, inputs, attributes } = source.node;
  const encode = encodings[op] as (attributes: object, inputs: readonly unknown[]) => Encoding;
  return (encode(attributes, inputs).dims ?? []).flatMap((shape: Shape) => shape);
}

const symbolsOf = (dim: SymbolicDim): string[] =>
  [...dim.terms.keys()].flatMap((monomial) => (monomial === "" ? [] : monomial.split("*").map(undivided)));

function undivided(name: string): string {
  const divided = dividedSymbol(name);
  return divided ? undivided(divided.of) : name;
}

/**
 * Checks that every symbol whose size a graph needs is the size of an axis of one of its inputs.
 * @throws GraphError naming those that are not.
 */
export function requireBoundSymbols(outputs: Readonly<Record<string, Value>>, graph: string): void {
  const values = reachable(Object.values(outputs));
  const inputs = values.filter(({ source }) => source.kind === "input");
  const bound = new Set(inputs.flatMap(({ shape }) => shape.map(symbolName)));
  const needed = values.flatMap(dimsFor).flatMap((dim) => (typeof dim === "number" ? [] : symbolsOf(dim)));
  const missing = [...new Set(needed)].filter((name) => !bound.has(name));
  if (missing.length > 0)
    throw new GraphError(
      `${graph} needs the size of ${missing.map((name) => `"${name}"`).join(", ")}, which no input of it has. Do not keep frozen values for this graph.`,
      { code: "unbound-symbol", details: { symbols: missing } },
    );
}

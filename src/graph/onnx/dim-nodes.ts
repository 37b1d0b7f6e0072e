import { GraphError } from "../../errors.ts";
import type { Tensor } from "../../tensor/index.ts";
import { type Dim, dividedSymbol, type Shape } from "../dim.ts";
import type { Value } from "../value.ts";
import type { Encoding } from "./encoding.ts";

/** What nodes that compute dimensions are written with. */
export type DimNodesOptions = {
  readonly inputs: ReadonlyMap<string, Value>;
  readonly constant: (tensor: Tensor) => string;
  readonly emit: (opType: string, inputs: string[], encoding?: Encoding) => string;
};

/** Nodes that compute dimensions from the shapes of a program's inputs, each once. Methods return names of values. */
export class DimNodes {
  private readonly names = new Map<string, string>();
  private readonly inputs: DimNodesOptions["inputs"];
  private readonly constant: DimNodesOptions["constant"];
  private readonly emit: DimNodesOptions["emit"];

  constructor({ inputs, constant, emit }: DimNodesOptions) {
    this.inputs = inputs;
    this.constant = constant;
    this.emit = emit;
  }

  /** A one-dimensional int64 tensor of dimensions. */
  dims(shape: Shape): string {
    if (shape.every((dim) => typeof dim === "number")) return this.int64s(shape as number[]);
    const key = shape.map(String).join(", ");
    const known = this.names.get(key);
    if (known !== undefined) return known;
    const parts: string[] = [];
    let run: number[] = [];
    for (const dim of shape) {
      if (typeof dim === "number") {
        run.push(dim);
        continue;
      }
      if (run.length > 0) parts.push(this.int64s(run));
      run = [];
      parts.push(this.dim(dim));
    }
    if (run.length > 0) parts.push(this.int64s(run));
    const name =
      parts.length === 1 ? parts[0]! : this.emit("Concat", parts, { attributes: { axis: { int: 0 } } });
    this.names.set(key, name);
    return name;
  }

  int64s(values: readonly number[]): string {
    return this.constant({
      dtype: "int64",
      shape: [values.length],
      data: BigInt64Array.from(values, BigInt),
    });
  }

  /** A dimension as an int64 tensor of shape [1], computed from the shapes of the inputs. */
  dim(dim: Dim): string {
    if (typeof dim === "number") return this.int64s([dim]);
    const known = this.names.get(dim.key);
    if (known !== undefined) return known;
    const terms = [...dim.terms].map(([monomial, k]) => {
      const factors = monomial === "" ? [] : monomial.split("*").map((name) => this.symbol(name));
      const all = k === 1 && factors.length > 0 ? factors : [this.int64s([k]), ...factors];
      return all.reduce((a, b) => this.emit("Mul", [a, b]));
    });
    const name = terms.reduce((a, b) => this.emit("Add", [a, b]));
    this.names.set(dim.key, name);
    return name;
  }

  /** The size of the axis of the first input that has this symbol. */
  private symbol(symbolName: string): string {
    const key = `symbol ${symbolName}`;
    const known = this.names.get(key);
    if (known !== undefined) return known;
    const divided = dividedSymbol(symbolName);
    if (divided) {
      const name = this.emit("Div", [this.symbol(divided.of), this.int64s([divided.divisor])]);
      this.names.set(key, name);
      return name;
    }
    for (const [inputName, { shape }] of this.inputs) {
      const axis = shape.findIndex((dim) => typeof dim !== "number" && dim.key === symbolName);
      if (axis < 0) continue;
      const attributes = { start: { int: axis }, end: { int: axis + 1 } };
      const name = this.emit("Shape", [inputName], { attributes });
      this.names.set(key, name);
      return name;
    }
    throw new GraphError(`No input has a dimension called "${symbolName}".`, { code: "unbound-symbol" });
  }
}

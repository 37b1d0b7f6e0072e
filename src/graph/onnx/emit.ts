import { create, toBinary } from "@bufbuild/protobuf";
import { GraphError } from "../../errors.ts";
import type { DType } from "../../tensor/index.ts";
import type { Shape } from "../dim.ts";
import type { OpName } from "../ops/signatures.ts";
import { operandsOf, reachable } from "../traverse.ts";
import { type Node, scalar, type Value, type WeightStorage } from "../value.ts";
import { DimNodes } from "./dim-nodes.ts";
import { type Encoding, encodings } from "./encoding.ts";
import { Initializers } from "./initializers.ts";
import {
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  TensorProto_DataType,
  type ValueInfoProto,
} from "./onnx_pb.ts";
import { attributeProto, valueInfo } from "./protos.ts";
import { WeightFiles } from "./weight-files.ts";

/** Opset of what is emitted, unless an operator needs a later one; ONNX IR version 10 is the first that allows it with bfloat16 weights. */
const OPSET = 20;
const IR_VERSION = 10;

/** Operators whose symbolic output sizes ONNX Runtime does not derive. */
const reshaping: ReadonlySet<OpName> = new Set([
  "After",
  "Reshape",
  "Expand",
  "Slice",
  "Concat",
  "Pad",
  "Range",
]);

/** One input or output of a program. */
export type Port = { readonly name: string; readonly dtype: DType; readonly shape: Shape };

/** A graph as ONNX Runtime takes it. */
export type Program = {
  /** The ONNX model: nodes and small constants, no weights. */
  readonly model: Uint8Array;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** Directory that the weights' locations are relative to; undefined if there is none, or they are in memory. */
  readonly weightsDirectory: string | undefined;
  /** All weights, where some cannot be mapped (see WeightFiles); else none. */
  readonly memoryWeights: readonly { readonly location: string; readonly storage: WeightStorage }[];
};

export type EmitOptions = {
  /**
   * Where a path leads when symbolic links are followed. ONNX Runtime rejects weights behind a link that leaves their
   * directory, as all links of a Hugging Face cache do.
   */
  realPath?: (path: string) => string;
};

/**
 * Writes the graph that `outputs` reach as an ONNX model. Weights are referred to by file and offset, never copied;
 * what the outputs do not depend on is left out.
 * @throws GraphError if two inputs share a name, an output is called as an input is, or a symbolic dimension belongs
 * to no input.
 */
export function emit(
  outputs: Readonly<Record<string, Value>>,
  { realPath = (path) => path }: EmitOptions = {},
): Program {
  return new Emitter(outputs, realPath).program();
}

class Emitter {
  private readonly nodes: NodeProto[] = [];
  private opset = OPSET;
  private readonly shapes: ValueInfoProto[] = [];
  private readonly names = new Map<Value, string>();
  /** Names of values that are outputs. */
  private readonly wanted = new Map<Value, string>();
  private readonly inputs = new Map<string, Value>();
  private readonly files: WeightFiles;
  private readonly initializers: Initializers;
  private readonly sizes: DimNodes;
  private readonly outputs: Readonly<Record<string, Value>>;
  private readonly values: readonly Value[];
  private readonly taken: Set<string>;

  constructor(outputs: Readonly<Record<string, Value>>, realPath: (path: string) => string) {
    this.outputs = outputs;
    this.values = reachable(Object.values(outputs));
    this.taken = new Set(Object.keys(outputs));
    for (const value of this.values)
      if (value.source.kind === "input") this.addInput(value.source.name, value);
    const storages = this.values.flatMap(({ source }) => (source.kind === "weight" ? [source.storage] : []));
    this.files = new WeightFiles(storages, realPath);
    this.initializers = new Initializers(this.files, (wanted) => this.unused(wanted));
    this.sizes = new DimNodes({
      inputs: this.inputs,
      constant: (tensor) => this.initializers.constant(tensor),
      emit: (opType, inputs, encoding) => this.emitNode(opType, inputs, encoding),
    });
  }

  program(): Program {
    for (const [name, value] of Object.entries(this.outputs))
      if (value.source.kind === "node" && !this.wanted.has(value)) this.wanted.set(value, name);
    // Weights are named by what reads them, which knows how.
    for (const value of this.inOrder()) if (value.source.kind !== "weight") this.name(value);
    const named = Object.entries(this.outputs).map(([name, value]) => {
      if (this.wanted.get(value) !== name) this.emitNode("Identity", [this.name(value)], {}, name);
      return { name, dtype: value.dtype, shape: value.shape };
    });
    const inputs = [...this.inputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
    const model = create(ModelProtoSchema, {
      irVersion: BigInt(IR_VERSION),
      producerName: "graft",
      opsetImport: [
        { domain: "", version: BigInt(this.opset) },
        { domain: "com.microsoft", version: 1n },
      ],
      graph: {
        name: "graft",
        node: this.nodes,
        initializer: this.initializers.protos,
        input: inputs.map(valueInfo),
        output: named.map(valueInfo),
        valueInfo: this.shapes,
      },
    });
    return {
      model: toBinary(ModelProtoSchema, model),
      inputs,
      outputs: named,
      weightsDirectory: this.files.directory,
      memoryWeights: this.files.memory,
    };
  }

  /**
   * The values in a topological order for which ONNX Runtime needs little memory. It computes what nothing else uses last
   * one first, each with all it depends on. So these come last and backwards: the loss is computed first, then the
   * gradients as the backward pass reaches them, and what a layer kept is freed layer by layer.
   */
  private inOrder(): Value[] {
    const used = new Set(this.values.flatMap(operandsOf));
    const ends = this.values.filter((value) => !used.has(value));
    return [...this.values.filter((value) => used.has(value)), ...ends.reverse()];
  }

  private addInput(name: string, value: Value): void {
    if (this.inputs.has(name))
      throw new GraphError(`Two inputs are called "${name}".`, {
        code: "duplicate-input",
        details: { name },
      });
    if (Object.hasOwn(this.outputs, name))
      throw new GraphError(`An input and an output are both called "${name}"; rename one.`, {
        code: "duplicate-output",
        details: { name },
      });
    this.inputs.set(name, value);
    this.names.set(value, name);
    this.taken.add(name);
  }

  /** Name of a value in the model; emits what it takes to have it. */
  private name(value: Value): string {
    const known = this.names.get(value);
    if (known !== undefined) return known;
    const name = this.define(value);
    this.names.set(value, name);
    this.declareShape(name, value);
    return name;
  }

  private define(value: Value): string {
    const { source } = value;
    switch (source.kind) {
      case "input":
        return source.name;
      case "constant":
        return this.initializers.constant(source.tensor);
      case "weight":
        return this.initializers.weight(source.storage);
      case "dim":
        return this.emitNode("Squeeze", [this.sizes.dim(source.dim)]);
      case "node":
        return this.node(source.node, this.wanted.get(value));
    }
  }

  /**
   * Names the symbolic dimensions of what ONNX Runtime would give new ones. It plans which buffers serve again by comparing
   * shapes, each with those of all free buffers: where none match, planning takes seconds for the graph of a hundred layers.
   */
  private declareShape(name: string, { dtype, shape, source }: Value): void {
    if (source.kind !== "node" || !reshaping.has(source.node.op)) return;
    if (shape.some((dim) => typeof dim !== "number")) this.shapes.push(valueInfo({ name, dtype, shape }));
  }

  /** `wanted`, or if something is called that already, `wanted` with a number. */
  private unused(wanted: string): string {
    let name = wanted;
    for (let i = 1; this.taken.has(name); i++) name = `${wanted}_${i}`;
    this.taken.add(name);
    return name;
  }

  private emitNode(
    opType: string,
    input: string[],
    encoding: Encoding = {},
    output = this.unused(`${opType}_${this.nodes.length}`),
  ): string {
    const attribute = Object.entries(encoding.attributes ?? {}).map(([name, value]) =>
      attributeProto(name, value),
    );
    this.nodes.push(
      create(NodeProtoSchema, {
        opType,
        domain: encoding.domain ?? "",
        input,
        output: [output],
        attribute,
        name: output,
      }),
    );
    return output;
  }

  private node(node: Node, name: string | undefined): string {
    if (node.op === "After") return this.after(node as unknown as Node<"After">, name);
    const encode = encodings[node.op] as (attributes: object, inputs: readonly unknown[]) => Encoding;
    const encoding = encode(node.attributes, node.inputs);
    const operands = (node.inputs as readonly (Value | undefined)[]).map((x, i) =>
      x === undefined ? "" : encoding.fourBits && i === 0 ? this.fourBits(x) : this.name(x),
    );
    while (operands.at(-1) === "") operands.pop();
    this.opset = Math.max(this.opset, encoding.opset ?? OPSET);
    const dims = (encoding.dims ?? []).map((shape) => this.sizes.dims(shape));
    const dtype = (node.inputs[0] as Value).dtype;
    const scalars = (encoding.scalars ?? []).map((value) => this.name(scalar(value, dtype)));
    const opType = node.op === "Boundary" ? "Identity" : node.op;
    return this.emitNode(opType, [...operands, ...dims, ...scalars], encoding, name);
  }

  /**
   * A Reshape of x to its own shape plus a zero that is made of what is to be computed earlier: of a size that is not known
   * before, as the engine would fold what is, else of its first element.
   */
  private after({ inputs: [x, earlier] }: Node<"After">, name: string | undefined): string {
    const axis = earlier.shape.findIndex((dim) => typeof dim !== "number");
    const number =
      axis >= 0
        ? this.emitNode("Shape", [this.name(earlier)], {
            attributes: { start: { int: axis }, end: { int: axis + 1 } },
          })
        : this.firstElement(earlier);
    const zero = this.emitNode("Mul", [number, this.sizes.int64s([0])]);
    return this.emitNode(
      "Reshape",
      [this.name(x), this.emitNode("Add", [this.sizes.dims(x.shape), zero])],
      {},
      name,
    );
  }

  /** The first element of a value as a whole number, [1]. */
  private firstElement(value: Value): string {
    const axes = value.shape.map((_, i) => i);
    const bounds = [axes.map(() => 0), axes.map(() => 1), axes].map((numbers) => this.sizes.int64s(numbers));
    const name = this.name(value);
    const first = axes.length === 0 ? name : this.emitNode("Slice", [name, ...bounds]);
    const flat = this.emitNode("Reshape", [first, this.sizes.int64s([1])]);
    return this.emitNode("Cast", [flat], { attributes: { to: { int: TensorProto_DataType.INT64 } } });
  }

  /** A weight of bytes, as twice as many signed numbers of 4 bits. */
  private fourBits({ source }: Value): string {
    if (source.kind !== "weight")
      throw new GraphError("Only a weight can hold numbers of 4 bits.", { code: "four-bits" });
    return this.initializers.weight(source.storage, TensorProto_DataType.INT4);
  }
}

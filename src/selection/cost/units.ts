import type { ModuleInfo } from "../tree.ts";
import { type Role, roleOf } from "./roles.ts";

/** Something that multiplies or looks up, with what it costs per position. Experts of one kind and layer are one unit. */
export type Unit = {
  readonly id: number;
  /** Of the module, or of the first expert's. */
  readonly name: string;
  readonly op: "product" | "lookup";
  readonly role: Role;
  /** Elements of the weight that one position is multiplied with, in one expert. */
  readonly weights: number;
  /** Elements of LoRA's two factors per rank that one position is multiplied with; a lookup has no first product. */
  readonly factorA: number;
  readonly factorB: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Experts that positions are spread over; 1 for everything else. */
  experts: number;
  /** Of the names of all its modules. */
  nameLength: number;
  /** "all-linear" takes it, unless it is the head. */
  readonly isLinear: boolean;
  /** Of a convolution. */
  readonly convolution?: Convolution;
};

/** How a convolution changes the size of what it is applied to. */
export type Convolution = {
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[] | "same";
};

/** Routers and stacked experts hold their weights themselves. */
export const isWeight = (own: string, shape: readonly number[], { kind, className }: ModuleInfo): boolean =>
  kind === "module" &&
  ((shape.length === 3 && shape[0]! > 1) ||
    (shape.length === 2 && own === "weight" && /router|gate/i.test(className)));

const product = (numbers: readonly number[]): number => numbers.reduce((a, b) => a * b, 1);

/** What a module multiplies with or looks up; undefined if it does neither. */
export function unitFor({
  name,
  kind,
  in: inputs,
  out: outputs,
  extra,
}: ModuleInfo): Omit<Unit, "id"> | undefined {
  if (inputs === null || outputs === null) return undefined;
  const base = {
    ...{ name, role: roleOf(name), inputs, outputs, factorB: outputs },
    ...{ experts: 1, nameLength: name.length, isLinear: kind === "linear" || kind === "conv1d_hf" },
  };
  switch (kind) {
    case "linear":
    case "conv1d_hf":
    case "mha":
      return {
        ...base,
        op: "product",
        weights: inputs * outputs,
        factorA: inputs,
        ...(kind === "mha" && { role: "qkv" as const }),
      };
    case "embedding":
      return { ...base, op: "lookup", weights: 0, factorA: 0 };
    case "conv1d":
    case "conv2d":
    case "conv3d": {
      const dimensions = Number(kind[4]);
      const spread = (value: number | readonly number[] | undefined, otherwise: number): readonly number[] =>
        typeof value === "object" ? value : Array<number>(dimensions).fill(value ?? otherwise);
      const kernel = spread(extra?.kernelSize, 1);
      const groups = extra?.groups ?? 1;
      return {
        ...base,
        op: "product",
        role: "chain",
        weights: (inputs / groups) * outputs * product(kernel),
        factorA: inputs * product(kernel),
        factorB: outputs / groups,
        convolution: {
          kernel,
          stride: spread(extra?.stride, 1),
          padding:
            extra?.padding === "same" ? "same" : spread(extra?.padding === "valid" ? 0 : extra?.padding, 0),
        },
      };
    }
    default:
      return undefined;
  }
}

/** Multiplies nothing, but what follows has fewer positions. ResNet's is the only one met so far. */
export const pooling = (name: string): Omit<Unit, "id"> => ({
  ...{ name, op: "product", role: "chain", weights: 0, factorA: 0, factorB: 0, inputs: 0, outputs: 0 },
  ...{ experts: 1, nameLength: 0, isLinear: false },
  convolution: { kernel: [3, 3], stride: [2, 2], padding: [1, 1] },
});

/** One of the parameters that `isWeight` tells. */
export function stackedUnit(
  module: string,
  own: string,
  shape: readonly number[],
  { extra }: ModuleInfo,
): Omit<Unit, "id"> {
  const [rows, columns] = shape.slice(-2) as [number, number];
  const isStack = shape.length === 3;
  const [outputs, inputs] = isStack && extra?.isTransposed ? [columns, rows] : [rows, columns];
  const name = `${module}.${own}`;
  return {
    name,
    op: "product",
    role: isStack ? roleOf(name) : "router",
    weights: rows * columns,
    factorA: inputs,
    factorB: outputs,
    inputs,
    outputs,
    experts: isStack ? shape[0]! : 1,
    nameLength: name.length,
    isLinear: false,
  };
}

import { expect } from "vitest";
import {
  cutFrozen,
  type Dim,
  evaluateDim,
  lower,
  type Node,
  reachable,
  type Value,
} from "../../../src/graph/index.ts";
import { operandsOf } from "../../../src/graph/traverse.ts";
import { type ImageSize, type LanguageModel, labelSizes } from "../../../src/models/index.ts";
import { lowerings } from "../../../src/runtime/lowerings.ts";
import type { Cost } from "../../../src/selection/index.ts";
import { layoutInputs } from "../../../src/training/prefix-cache/prefix-cache.ts";
import { gradientName, trainingProgram } from "../../../src/training/program.ts";

/** Operations of matrix products, by what is multiplied. */
export type ProductFlops = {
  /** By a frozen weight. */
  frozen: number;
  /** By what is trained, or for its gradient. */
  trained: number;
  /** Queries by keys, weights by values. */
  attention: number;
  /** By the weight that scores the vocabulary. */
  head: number;
};

export type GraphCounts = {
  readonly forward: ProductFlops;
  readonly backward: ProductFlops;
  /** Once frozen values are kept, as training chooses them; bytes of an example. */
  readonly later: {
    readonly forward: ProductFlops;
    readonly backward: ProductFlops;
    readonly keptBytes: number;
  };
  /** Bytes of values that the forward pass computes and the backward pass reads; views of one buffer count once. */
  readonly keptBytes: number;
  /** The same values: what they are and how large. */
  readonly kept: readonly { readonly value: string; readonly bytes: number }[];
  readonly trainedElements: number;
};

export type BatchShape = {
  readonly batch: number;
  /** Tokens per example; of the encoder, where there are two. */
  readonly sequence: number;
  /** Of the decoder. */
  readonly target?: number;
  readonly labels: number;
  /** Size of each example's picture. */
  readonly image?: ImageSize;
  readonly modelDropout?: boolean;
  /** Price at which values are kept for later epochs. */
  readonly flopsPerByte?: number;
};

const empty = (): ProductFlops => ({ frozen: 0, trained: 0, attention: 0, head: 0 });

const inputsOf = (outputs: Readonly<Record<string, Value>>): string[] =>
  reachable(Object.values(outputs)).flatMap(({ source }) => (source.kind === "input" ? [source.name] : []));

/** What a loss is computed from; what only has to be computed earlier is not. */
function forwardOf(loss: Value): ReadonlySet<Value> {
  const seen = new Set<Value>();
  const stack = [loss];
  for (let value = stack.pop(); value; value = stack.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    const isAfter = value.source.kind === "node" && value.source.node.op === "After";
    stack.push(...operandsOf(value).slice(0, isAfter ? 1 : undefined));
  }
  return seen;
}

const elementBytes: Readonly<Record<string, number>> = { float32: 4, int32: 4, int64: 8, bool: 1 };

/**
 * Counts on the graph of training, differentiated and lowered for the CPU, what a step of a batch of this shape multiplies and
 * keeps.
 */
export function countGraph(
  model: LanguageModel,
  { batch, sequence, target = sequence, labels, image, modelDropout = false, flopsPerByte }: BatchShape,
): GraphCounts {
  const { outputs, trained } = trainingProgram(model, { image, modelDropout });
  const lowered = lower(outputs, lowerings.cpu);
  const sizes = {
    ...{ batch, sequence, source: sequence, target, images: batch },
    ...labelSizes(model.vocabSize, labels),
  };
  const symbols = new Map(Object.entries(sizes));
  const size = (shape: readonly Dim[]): number =>
    shape.reduce<number>((n, dim) => n * evaluateDim(dim, symbols), 1);
  const productsOf = (
    of: Readonly<Record<string, Value>>,
  ): { forward: ProductFlops; backward: ProductFlops } => {
    const forwardValues = forwardOf(of["loss"]!);
    const gradientValues = new Set(trained.map((parameter) => of[gradientName(parameter)]!));
    const [forward, backward] = [empty(), empty()];
    for (const value of reachable(Object.values(of))) {
      if (value.source.kind !== "node") continue;
      const { node } = value.source;
      const flops = productFlops(node, value, size);
      if (flops === 0) continue;
      const part = partOf(node, value, gradientValues, model.vocabSize);
      (forwardValues.has(value) ? forward : backward)[part] += flops;
    }
    return { forward, backward };
  };
  const all = reachable(Object.values(lowered));
  const forwardValues = forwardOf(lowered["loss"]!);
  const cut = cutFrozen(outputs, {
    ...{ sizes, layout: layoutInputs(model) },
    varying: inputsOf(outputs).filter((name) => name.includes("dropout_noise")),
    ...(flopsPerByte !== undefined && { flopsPerByte }),
  });

  const kept = new Set<Value>();
  for (const value of all) {
    if (forwardValues.has(value) || value.source.kind !== "node") continue;
    for (const operand of operandsOf(value))
      if (forwardValues.has(operand)) {
        const buffer = bufferOf(operand);
        if (buffer.source.kind === "node" && isOfExamples(buffer) && !isWeight(buffer)) kept.add(buffer);
      }
  }
  const bytes = (value: Value): number => size(value.shape) * (elementBytes[value.dtype] ?? Number.NaN);
  return {
    ...productsOf(lowered),
    later: {
      ...(cut ? productsOf(lower(cut.outputs, lowerings.cpu)) : productsOf(lowered)),
      keptBytes: cut?.bytesPerExample(sizes) ?? 0,
    },
    keptBytes: [...kept].reduce((sum, value) => sum + bytes(value), 0),
    kept: [...kept].map((value) => ({ value: String(value), bytes: bytes(value) })),
    trainedElements: trained.reduce((sum, parameter) => sum + parameter.size, 0),
  };
}

function productFlops(node: Node, value: Value, size: (shape: readonly Dim[]) => number): number {
  const [a, b] = node.inputs as readonly Value[];
  // every number of the result is a sum over channels of a group and places of the kernel
  if (node.op === "Conv") return 2 * size(value.shape) * size(b!.shape.slice(1));
  // and here every number of the input is spread as widely
  if (node.op === "ConvTranspose") return 2 * size(a!.shape) * size(b!.shape.slice(1));
  if (node.op === "MatMul") return 2 * size(value.shape) * size([a!.shape.at(-1)!]);
  if (node.op !== "Gemm") return 0;
  const { transA } = node.attributes as { transA: boolean };
  return 2 * size(value.shape) * size([a!.shape[transA ? 0 : 1]!]);
}

/** A view shares the buffer of what it views. */
function bufferOf(value: Value): Value {
  const { source } = value;
  if (source.kind === "node" && (source.node.op === "Reshape" || source.node.op === "After"))
    return bufferOf(source.node.inputs[0] as Value);
  return value;
}

/** Adapters' factors side by side are no activations. */
const isOfExamples = ({ shape }: Value): boolean => shape.some((dim) => typeof dim !== "number");

/** A frozen weight, or its transposition or conversion, or a kernel turned round: made once, when the model is loaded. */
function isWeight(value: Value): boolean {
  const { source } = value;
  if (source.kind !== "node") return source.kind === "weight";
  const ofKernels = value.rank >= 4 ? ["Reshape", "Gather"] : [];
  return (
    ["Cast", "Transpose", ...ofKernels].includes(source.node.op) && isWeight(source.node.inputs[0] as Value)
  );
}

const isTrainedHead = ({ source, shape }: Value, vocabSize: number): boolean =>
  source.kind === "input" && !source.name.includes("lora_") && shape[0] === vocabSize;

function partOf(
  node: Node,
  value: Value,
  gradients: ReadonlySet<Value>,
  vocabSize: number,
): keyof ProductFlops {
  const operands = (node.inputs as readonly (Value | undefined)[]).slice(0, 2) as readonly Value[];
  if (node.op !== "MatMul" || operands.every(({ rank }) => rank === 2)) {
    const weight = operands.find((operand) => isWeight(operand) || isTrainedHead(operand, vocabSize));
    if (weight === undefined) return "trained";
    return weight.shape.includes(vocabSize) ? "head" : "frozen";
  }
  return gradients.has(value) ? "trained" : "attention";
}

/** What is left of an estimate in later epochs, and what is kept for that, is what the graph says that training cuts. */
export function expectLater({ laterEpochs }: Cost, { later, backward }: GraphCounts, units: number): void {
  for (const part of ["frozen", "trained", "attention", "head"] as const) {
    expect(laterEpochs.forwardFlops[part] * units, `later forward ${part}`).toBeCloseTo(
      later.forward[part],
      0,
    );
    expect(later.backward[part]).toBe(backward[part]);
  }
  // what is left out: sums that a trained norm reads
  const slack = Math.max(0.01 * later.keptBytes, 8 * 40);
  expect(Math.abs(laterEpochs.keptBytes - later.keptBytes)).toBeLessThanOrEqual(slack);
}

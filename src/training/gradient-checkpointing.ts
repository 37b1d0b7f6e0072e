import {
  dimProduct,
  flopsOf,
  nodesOf,
  peakBytes,
  reachable,
  recomputedBlocks,
  type Value,
} from "../graph/index.ts";
import type { TrainingOptions } from "./options.ts";

/** What was decided, and what it comes to for the largest batch so far. */
export type CheckpointingReport = {
  /** Blocks of which the backward pass computes again all but what enters them, and how many gradients flow through. */
  readonly recomputed: number;
  readonly blocks: number;
  /** Work that is done again, as a share of a step's without it. */
  readonly recomputedShare: number;
  /** Bytes that training is expected to take, with this and without. */
  readonly estimatedBytes: number;
  readonly estimatedBytesWithout: number;
  /** Whether that is within the limit, where there is one. */
  readonly fits: boolean;
  /** One plain sentence for the person, in lower case and without its full stop. */
  readonly reason: string;
};

/** A graph of gradients, for the blocks that are to be computed again. */
type Build = (isRecomputed: (block: number) => boolean) => Record<string, Value>;
type Sizes = Readonly<Record<string, number>>;

/** The process and the runtime. */
const PROCESS = 0.35e9;
/** What the runtime's arena loses of the graph's values. */
const ARENA = 1.1;
/** Of what is trained: values, gradients and the optimizer's two moments. */
const BYTES_PER_TRAINED = 16;

/** Decides which blocks of a program the backward pass computes again: those computed first, which it comes to last. */
export class GradientCheckpointing {
  private readonly settings: Pick<TrainingOptions, "gradientCheckpointing" | "memoryLimit">;
  private decided: CheckpointingReport | undefined;

  constructor(settings: Pick<TrainingOptions, "gradientCheckpointing" | "memoryLimit">) {
    this.settings = settings;
  }

  /** The last decision. */
  get report(): CheckpointingReport | undefined {
    return this.decided;
  }

  /** Whether a program may need more blocks for a larger batch. */
  exceeds(outputs: Readonly<Record<string, Value>>, sizes: Sizes): boolean {
    const { gradientCheckpointing: mode, memoryLimit = Infinity } = this.settings;
    return mode === "auto" && estimate(outputs, sizes) > memoryLimit;
  }

  /** The program for batches of these sizes. */
  choose(build: Build, sizes: Sizes): Record<string, Value> {
    const { gradientCheckpointing: mode, memoryLimit = Infinity } = this.settings;
    const without = build(() => false);
    const all = build(() => true);
    const blocks = recomputedBlocks(reachable(Object.values(all))).sort((a, b) => a - b);
    const first = (count: number): Record<string, Value> => {
      if (count === 0) return without;
      const chosen = new Set(blocks.slice(0, count));
      return count === blocks.length ? all : build((block) => chosen.has(block));
    };
    let [low, high] = mode === true ? [blocks.length, blocks.length] : [0, blocks.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (estimate(first(middle), sizes) <= memoryLimit) high = middle;
      else low = middle + 1;
    }
    const outputs = first(low);
    const [bytes, bytesWithout] = [estimate(outputs, sizes), estimate(without, sizes)];
    const [work, workWithout] = [workOf(outputs, sizes), workOf(without, sizes)];
    const found = {
      recomputed: low,
      blocks: blocks.length,
      recomputedShare: work / workWithout - 1,
      estimatedBytes: bytes,
      estimatedBytesWithout: bytesWithout,
      fits: bytes <= memoryLimit,
    };
    this.decided = { ...found, reason: reasonOf(found, memoryLimit, sizes) };
    return outputs;
  }
}

/** Bytes that training with a program is expected to take: the process, weights, what is trained, and the graph's values. */
function estimate(outputs: Readonly<Record<string, Value>>, sizes: Sizes): number {
  const values = reachable(Object.values(outputs));
  const frozen = new Map<string, number>();
  let trained = 0;
  for (const { source, shape } of values) {
    if (source.kind === "weight") {
      const { storage } = source;
      const place = `${storage.source.path} ${storage.name} ${storage.byteOffset}`;
      frozen.set(place, bytesOfWeight(storage));
    }
    if (source.kind === "input" && shape.every((dim) => typeof dim === "number"))
      trained += BYTES_PER_TRAINED * (dimProduct(shape) as number);
  }
  const weights = [...frozen.values()].reduce((a, b) => a + b, 0);
  return PROCESS + weights + trained + ARENA * peakBytes(outputs, sizes);
}

/** Halves are widened, beside what the file holds. */
const bytesOfWeight = ({
  dtype,
  byteLength,
}: {
  readonly dtype: string;
  readonly byteLength: number;
}): number => (dtype === "float16" || dtype === "bfloat16" ? 3 * byteLength : byteLength);

const workOf = (outputs: Readonly<Record<string, Value>>, sizes: Sizes): number => {
  const known = new Map(Object.entries(sizes));
  return nodesOf(Object.values(outputs)).reduce((sum, node) => sum + flopsOf(node, known), 0);
};

function reasonOf(
  {
    recomputed,
    blocks,
    recomputedShare,
    estimatedBytes,
    estimatedBytesWithout,
    fits,
  }: Omit<CheckpointingReport, "reason">,
  limit: number,
  { batch = 1, sequence, source, target }: Sizes,
): string {
  const tokens = sequence ?? `(${source} + ${target})`;
  const need = `about ${gigabytes(estimatedBytes)} for ${batch} × ${tokens} tokens`;
  const instead = `, instead of ${gigabytes(estimatedBytesWithout)}`;
  const share = `${Number((100 * recomputedShare).toPrecision(2))} %`;
  const what =
    recomputed === 0
      ? `nothing is computed again: ${need}`
      : `${recomputed} of ${blocks} blocks are computed again in the backward pass, ${share} more work a step: ${need}${instead}`;
  if (limit === Infinity) return what;
  return fits
    ? `${what}; the limit is ${gigabytes(limit)}`
    : `${what}; that is beyond the limit of ${gigabytes(limit)}. Smaller batches (batchSize, with gradientAccumulationSteps for the same step), shorter examples (maxLength) or fewer adapted layers would help`;
}

const gigabytes = (bytes: number): string =>
  bytes >= 0.995e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(0)} MB`;

import type { Batch } from "../../data/index.ts";
import { type Cut, cutFrozen, emit, type Value } from "../../graph/index.ts";
import { type LanguageModel, labelInputNames, labelSizes } from "../../models/index.ts";
import type { Engine } from "../../runtime/index.ts";
import type { Objective } from "../objective.ts";
import { KeptValues } from "./kept-values.ts";
import { prefixKey, type WeightDigests } from "./keys.ts";
import { MemoryStore } from "./memory-store.ts";
import { type PrefixCachePlan, planPrefixCache } from "./plan.ts";
import { TieredStore } from "./tiered-store.ts";
import type { KeptDType, PrefixStats, PrefixStore } from "./types.ts";

/** What a person says about the cache. */
export type PrefixCacheSettings = {
  readonly mode: "auto" | "off" | "memory" | "disk";
  readonly dtype: KeptDType;
  /** The most it may take, in bytes. */
  readonly maxBytes: number | undefined;
  /** Where it lies on disk; undefined if nowhere. */
  readonly directory: string | undefined;
  /** Whether the folder is this run's alone: what other prefixes left there is deleted. */
  readonly own: boolean;
};

export type PrefixCacheOptions = PrefixCacheSettings & {
  readonly engine: Engine;
  readonly examples: number;
  /** Times each example is needed. */
  readonly epochs: number;
  /** Told in a sentence if the disk cannot be read or written. */
  readonly onWarning?: (message: string) => void;
};

/** A program of a model, for batches of one kind. */
export type PrefixedProgram = {
  readonly model: LanguageModel;
  readonly objective: Objective;
  readonly outputs: Readonly<Record<string, Value>>;
  /** A batch of the kind, from which the costs are estimated. */
  readonly batch: Batch;
  /** Which examples it is for, e.g. "train", and of which kind. */
  readonly dataset: string;
  readonly kind: string;
};

/** What the cache did: where, why, and how often values were found. */
export type PrefixCacheReport = Pick<PrefixCachePlan, "mode" | "reason"> & {
  /** Share of a step's work that is done once per example. */
  readonly savedShare: number;
  readonly bytesPerExample: number;
};

/** Inputs that say how a batch is laid out rather than what it holds. */
const layout = ["attention_mask", "segment_ids", "decoder_attention_mask", "position_ids", "image_rows"];

/** Prices of keeping a byte at which less is worth keeping than usual: for who asks for a cache, of a small model too. */
const cheap = { flopsPerByte: 100, minSavedShare: 0 };
const cheaper = { flopsPerByte: 1, minSavedShare: 0 };

/** What a page may use: browsers do not say how much is free. */
const BROWSER_MEMORY = 2e9;

/**
 * Everything below the lowest adapted layer, once per example: cuts programs at the frozen values worth keeping, decides where to keep
 * them, and keeps them. One cache serves the programs of a run: those for other sizes of pictures, and those for evaluation.
 */
export class PrefixCache {
  private readonly options: PrefixCacheOptions;
  private readonly keys = new Map<string, Map<number, string>>();
  private readonly values = new Set<KeptValues>();
  private readonly digests: WeightDigests = new Map();
  private store: PrefixStore | undefined;
  private onDisk = false;
  private decided: PrefixCacheReport | undefined;

  constructor(options: PrefixCacheOptions) {
    this.options = options;
  }

  /** What was decided at the first program. */
  get report(): PrefixCacheReport | undefined {
    return this.decided;
  }

  get stats(): PrefixStats | undefined {
    return this.store?.stats();
  }

  /** The program behind what is kept, with the values it is fed; undefined if nothing is kept of it. */
  async cut(
    program: PrefixedProgram,
  ): Promise<{ outputs: Record<string, Value>; kept: KeptValues } | undefined> {
    if (this.options.mode === "off" || (this.decided && !this.store)) return undefined;
    const { outputs, batch, objective, model, dataset, kind } = program;
    const sizes = sizesOf(batch, model.vocabSize);
    const varying = Object.keys(objective.noise(batch, 0));
    const at = (price: object): Cut | undefined =>
      cutFrozen(outputs, {
        varying,
        layout: [...layout, ...labelInputNames(model.vocabSize)],
        sizes,
        ...price,
      });
    const cut = at({}) ?? (this.options.mode === "auto" ? undefined : (at(cheap) ?? at(cheaper)));
    this.decided ??= await this.decide(cut, { sizes, key: cut && (() => this.keyOf(cut)) });
    if (!cut || !this.store) return undefined;
    const { inputs } = emit(cut.prefix);
    const name = `${dataset} ${kind}`;
    const keys = this.keys.get(name) ?? new Map<number, string>();
    this.keys.set(name, keys);
    const kept = new KeptValues({
      kept: cut.kept,
      store: this.store,
      // In memory nothing but the program can differ from one call to the next.
      scope: this.onDisk ? await this.keyOf(cut) : name,
      keys,
      load: () => this.options.engine.createSession(cut.prefix),
      feeds: async (part) => ({
        ...(await model.parameterFeeds()),
        ...objective.feeds(part, { lossScale: 1 }),
      }),
      reads: new Set(inputs.map((port) => port.name)),
    });
    this.values.add(kept);
    return { outputs: cut.outputs, kept };
  }

  /** Frees the graphs of what is kept if all that was read so far is there. */
  async epochEnded(): Promise<void> {
    if (this.store?.stats().refused === 0) await this.release();
  }

  /** `remove`: what is on disk too. */
  async close({ remove = false }: { remove?: boolean } = {}): Promise<void> {
    await this.release();
    await this.store?.close({ remove });
    const { directory, own } = this.options;
    if (remove && own && directory !== undefined && isNode())
      await (await import("./node.ts")).removeIfEmpty(directory);
  }

  private async release(): Promise<void> {
    for (const kept of this.values) await kept.release();
  }

  private keyOf(cut: Cut): Promise<string> {
    const { engine, dtype } = this.options;
    return prefixKey(cut.prefix, { dtype, engine: engine.version, digests: this.digests });
  }

  private async decide(
    cut: Cut | undefined,
    { sizes, key }: { sizes: Readonly<Record<string, number>>; key: (() => Promise<string>) | undefined },
  ): Promise<PrefixCacheReport> {
    if (!cut || !key)
      return {
        mode: "off",
        reason: "nothing is computed once per example: adapters reach down to the first layers",
        savedShare: 0,
        bytesPerExample: 0,
      };
    const { mode, dtype, maxBytes, own, examples, epochs, onWarning } = this.options;
    const disk = isNode() ? await import("./node.ts") : undefined;
    const directory = disk && mode !== "memory" ? this.options.directory : undefined;
    const bytesPerExample = cut.bytesPerExample(sizes) / (dtype === "float32" ? 1 : 2);
    const savedShare = cut.savedFlops / cut.totalFlops;
    const planWith = async (storedExamples: number): Promise<PrefixCachePlan> =>
      planPrefixCache({
        mode,
        frozen: `the frozen part (${Math.round(100 * savedShare)} % of the work)`,
        bytesPerExample,
        examples,
        epochs,
        savedShare,
        savedFlops: cut.savedFlops,
        freeMemory: disk?.freeMemory() ?? BROWSER_MEMORY,
        freeDisk: directory === undefined ? undefined : await disk?.freeDisk(directory),
        ...(maxBytes !== undefined && { maxBytes }),
        storedExamples,
      });
    let plan = await planWith(0);
    // Opening it hashes the frozen weights, so only if it is to be used, or an earlier run may have left something there.
    const where =
      disk && directory !== undefined && (plan.diskBytes > 0 || (await disk.isThere(directory)))
        ? await openDisk(disk, { directory, own, key: await key(), maxBytes, dtype, onWarning })
        : undefined;
    if (where) plan = await planWith(where.stats().examples);
    const stores: PrefixStore[] = [
      ...(plan.memoryBytes > 0 ? [new MemoryStore({ maxBytes: plan.memoryBytes, dtype })] : []),
      ...(plan.diskBytes > 0 && where ? [where] : []),
    ];
    if (plan.diskBytes === 0) await where?.close({ remove: where.stats().examples === 0 });
    this.onDisk = where !== undefined && stores.includes(where);
    if (stores.length > 0) this.store = stores.length === 1 ? stores[0] : new TieredStore(stores);
    return { mode: plan.mode, reason: plan.reason, savedShare, bytesPerExample };
  }
}

async function openDisk(
  { DiskStore, freeDisk, removeStale }: typeof import("./node.ts"),
  options: {
    directory: string;
    own: boolean;
    key: string;
    maxBytes: number | undefined;
    dtype: KeptDType;
    onWarning: ((message: string) => void) | undefined;
  },
): Promise<PrefixStore> {
  const { directory, own, key, dtype, onWarning } = options;
  if (own) await removeStale(directory, key);
  const maxBytes = options.maxBytes ?? ((await freeDisk(directory)) ?? 0) / 2;
  return DiskStore.open({ directory, key, dtype, maxBytes, ...(onWarning && { onWarning }) });
}

/** Sizes of a graph's dimensions in a batch. */
const sizesOf = (
  { inputIds, labels, labelTokens, pixelValues }: Batch,
  vocabSize: number,
): Record<string, number> => ({
  batch: inputIds.shape[0]!,
  sequence: inputIds.shape[1]!,
  source: inputIds.shape[1]!,
  target: labels.shape[1]!,
  ...labelSizes(vocabSize, Math.max(1, labelTokens)),
  images: pixelValues?.shape[0] ?? inputIds.shape[0]!,
});

const isNode = (): boolean =>
  (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined;

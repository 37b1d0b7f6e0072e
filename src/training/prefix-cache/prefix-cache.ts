import type { Batch } from "../../data/index.ts";
import { type Cut, cutFrozen, type Value } from "../../graph/index.ts";
import { type LanguageModel, labelInputNames } from "../../models/index.ts";
import type { Engine } from "../../runtime/index.ts";
import { sizesOf } from "../batch-sizes.ts";
import type { Objective } from "../objective.ts";
import { ExampleKeys } from "./example-keys.ts";
import { combinedKey, graphKey, prefixKey, type WeightDigests } from "./keys.ts";
import { inputsOf, Prefix } from "./prefix.ts";
import { RecentStore } from "./recent-store.ts";
import { isNode, openStores, type PrefixCacheReport, type Stores, type StoresOptions } from "./stores.ts";
import type { PrefixStats } from "./types.ts";

export type PrefixCacheOptions = StoresOptions & { readonly engine: Engine };

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

/** Inputs that say how a batch is laid out rather than what it holds. */
export const layoutInputs = ({ vocabSize }: LanguageModel): string[] => [
  ...["attention_mask", "segment_ids", "decoder_attention_mask", "position_ids", "image_rows"],
  ...labelInputNames(vocabSize),
];

/** Prices of keeping a byte at which less is worth keeping than usual: for who asks for a cache, of a small model too. */
const cheap = { flopsPerByte: 100, minSavedShare: 0 };
const cheaper = { flopsPerByte: 1, minSavedShare: 0 };

/**
 * Everything below the lowest adapted layer, once per example: cuts programs at the frozen values worth keeping, decides where to keep
 * them, and keeps them. One cache serves the programs of a run: those for other sizes of pictures, and those for evaluation.
 */
export class PrefixCache {
  private readonly options: PrefixCacheOptions;
  private readonly digests: WeightDigests = new Map();
  /** By what names their scope. */
  private readonly keys = new Map<string, ExampleKeys>();
  /** By dataset, and by kind of batch. */
  private readonly prefixes = new Map<string, Map<string, Prefix>>();
  private stores: Stores | undefined;
  private recent: RecentStore | undefined;

  constructor(options: PrefixCacheOptions) {
    this.options = options;
  }

  /** What was decided at the first program. */
  get report(): PrefixCacheReport | undefined {
    return this.stores?.report;
  }

  get stats(): PrefixStats | undefined {
    return this.stores?.store?.stats();
  }

  /** The program behind what is kept, with the values it is fed; undefined if nothing is kept of it. */
  async cut(program: PrefixedProgram): Promise<{ outputs: Record<string, Value>; kept: Prefix } | undefined> {
    const { engine, mode } = this.options;
    if (mode === "off" || (this.stores && !this.stores.store)) return undefined;
    const { outputs, batch, objective, model, dataset, kind } = program;
    const sizes = sizesOf(batch, model.vocabSize);
    const varying = Object.keys(objective.noise(batch, 0));
    const at = (price: object): Cut | undefined =>
      cutFrozen(outputs, {
        varying,
        layout: layoutInputs(model),
        sizes,
        ...price,
      });
    const cut = at({}) ?? (mode === "auto" ? undefined : (at(cheap) ?? at(cheaper)));
    this.stores ??= await openStores(cut, this.options, { sizes, key: () => this.keyOf(cut!) });
    const { store, recentBytes } = this.stores;
    if (!cut || !store) return undefined;
    this.recent ??= new RecentStore(recentBytes);
    const kept = new Prefix(cut, {
      engine,
      store,
      features: this.recent,
      keys: await this.keysOf(cut, dataset),
      feeds: async (part) => ({
        ...(await model.parameterFeeds()),
        ...objective.feeds(part, { lossScale: 1 }),
      }),
      sizes,
    });
    const kinds = this.prefixes.get(dataset) ?? new Map<string, Prefix>();
    await kinds.get(kind)?.release();
    this.prefixes.set(dataset, kinds.set(kind, kept));
    return { outputs: cut.outputs, kept };
  }

  /** Shape of an example's picture, [channels, height, width], if what follows from it is kept and it need not be read. */
  pictureShape(dataset: string, index: number): readonly number[] | undefined {
    for (const prefix of this.prefixes.get(dataset)?.values() ?? []) {
      const shape = prefix.pictureShape(index);
      if (shape) return shape;
    }
    return undefined;
  }

  /** Frees the graphs of what is kept if all that was read so far is there. */
  async epochEnded(): Promise<void> {
    if (this.stats?.refused === 0) await this.release();
  }

  /** `remove`: what is on disk too. */
  async close({ remove = false }: { remove?: boolean } = {}): Promise<void> {
    await this.release();
    await this.stores?.store?.close({ remove });
    const { directory, own } = this.options;
    if (remove && own && directory !== undefined && isNode())
      await (await import("./node.ts")).removeIfEmpty(directory);
  }

  private async release(): Promise<void> {
    for (const kinds of this.prefixes.values()) for (const prefix of kinds.values()) await prefix.release();
    await this.recent?.close();
  }

  private keyOf(cut: Cut): Promise<string> {
    const { engine, dtype } = this.options;
    return prefixKey(cut.prefix, { dtype, engine: engine.version, digests: this.digests });
  }

  /** Keys of a dataset's examples for what a cut keeps. A batch of other sizes may be cut elsewhere. */
  private async keysOf(cut: Cut, dataset: string): Promise<ExampleKeys> {
    // Of what is in memory the weights are the same from one call to the next.
    const scope = await (this.stores?.onDisk ? this.keyOf(cut) : graphKey(cut.prefix));
    const name = await combinedKey(scope, dataset);
    const keys = this.keys.get(name) ?? new ExampleKeys(scope, inputsOf(cut.prefix));
    this.keys.set(name, keys);
    return keys;
  }
}

import type { Cut } from "../../graph/index.ts";
import { MemoryStore } from "./memory-store.ts";
import { type PrefixCachePlan, planPrefixCache } from "./plan.ts";
import { TieredStore } from "./tiered-store.ts";
import type { KeptDType, PrefixStore } from "./types.ts";

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

export type StoresOptions = PrefixCacheSettings & {
  readonly examples: number;
  /** Times each example is needed. */
  readonly epochs: number;
  /** Told in a sentence if the disk cannot be read or written. */
  readonly onWarning?: (message: string) => void;
};

/** What was decided: where, why, and what is saved. */
export type PrefixCacheReport = Pick<PrefixCachePlan, "mode" | "reason"> & {
  /** Share of a step's work that is done once per example. */
  readonly savedShare: number;
  readonly bytesPerExample: number;
};

export type Stores = {
  readonly report: PrefixCacheReport;
  /** Undefined if nothing is to be kept. */
  readonly store: PrefixStore | undefined;
  /** Whether other runs read what is stored. */
  readonly onDisk: boolean;
  /** Room for what is wanted again within an epoch, in bytes. */
  readonly recentBytes: number;
};

/** Of free memory, so much may be taken by features of the pictures used last. */
const RECENT_SHARE = 1 / 8;

/**
 * Decides where to keep what a cut keeps, and opens it.
 * @param sizes of the graph's symbols in a batch.
 * @param key names the cut; it is costly.
 */
export async function openStores(
  cut: Cut | undefined,
  options: StoresOptions,
  { sizes, key }: { sizes: Readonly<Record<string, number>>; key: () => Promise<string> },
): Promise<Stores> {
  if (!cut) return nothing("nothing is computed once per example: adapters reach down to the first layers");
  // Pages that are not served securely have none.
  if (!(crypto as Partial<Crypto>).subtle)
    return nothing("examples cannot be told apart without Web Crypto; serve the page by https");
  const { mode, dtype, maxBytes, own, examples, epochs, onWarning } = options;
  const disk = isNode() ? await import("./node.ts") : undefined;
  const directory = disk && mode !== "memory" ? options.directory : undefined;
  const bytesPerExample = cut.bytesPerExample(sizes) / (dtype === "float32" ? 1 : 2);
  const savedShare = cut.savedFlops / cut.totalFlops;
  const freeMemory = disk?.freeMemory() ?? pageMemory();
  const planWith = async (storedExamples: number): Promise<PrefixCachePlan> =>
    planPrefixCache({
      mode,
      frozen: `the frozen part (${Math.round(100 * savedShare)} % of the work)`,
      bytesPerExample,
      examples,
      epochs,
      savedShare,
      savedFlops: cut.savedFlops,
      freeMemory,
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
  const { mode: decided, reason } = plan;
  const needed = bytesPerExample * examples;
  return {
    report: { mode: decided, reason, savedShare, bytesPerExample },
    store: stores.length > 1 ? new TieredStore(stores) : stores[0],
    onDisk: where !== undefined && stores.includes(where),
    recentBytes: Math.max(0, Math.min(freeMemory * RECENT_SHARE, (maxBytes ?? Infinity) - needed)),
  };
}

const nothing = (reason: string): Stores => ({
  report: { mode: "off", reason, savedShare: 0, bytesPerExample: 0 },
  store: undefined,
  onDisk: false,
  recentBytes: 0,
});

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

/**
 * Memory that a page can still take, in bytes. Browsers do not say how much is free; some tell how much the device has, in GiB,
 * at most 8. A quarter of it is what a page gets before the system gets short; of an unknown device take that of 4 GiB.
 */
const pageMemory = (): number =>
  ((globalThis as { navigator?: { deviceMemory?: number } }).navigator?.deviceMemory ?? 4) * 2 ** 28;

export const isNode = (): boolean =>
  (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined;

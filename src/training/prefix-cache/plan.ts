export type PrefixCacheMode = "auto" | "off" | "memory" | "disk";

export type PrefixCachePlanOptions = {
  /** What was asked for. */
  readonly mode: PrefixCacheMode;
  /** What is frozen, for the reason: "the frozen 22 layers". Default "the frozen part". */
  readonly frozen?: string;
  /** Of an example as it is stored; halve it for float16 and bfloat16. */
  readonly bytesPerExample: number;
  readonly examples: number;
  /** Times each example is needed in this run: epochs, or evaluations. May be a fraction. */
  readonly epochs: number;
  /** Share of a step's work that the frozen part is, 0 to 1. */
  readonly savedShare: number;
  /** That work for one example, in floating-point operations. */
  readonly savedFlops: number;
  /** The same as measured, in seconds; without it a fast processor is assumed. */
  readonly savedSeconds?: number;
  /** Bytes. */
  readonly freeMemory: number;
  /** Bytes; undefined if there is no disk. */
  readonly freeDisk: number | undefined;
  /** The most that may be taken in all, in bytes. */
  readonly maxBytes?: number;
  /** Examples that an earlier run left on disk. Default 0. */
  readonly storedExamples?: number;
};

export type PrefixCachePlan = {
  readonly mode: "off" | "memory" | "disk" | "memory+disk";
  /** Bounds for the stores: room they may take, not what they are expected to. */
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** One plain sentence for the person, in lower case and without its full stop. */
  readonly reason: string;
};

/**
 * Of free memory, half: the batches read ahead, the activations of what is trained and the system's copy of the weights'
 * files need room too, and a machine that swaps loses more time than the cache can save.
 */
const MEMORY_SHARE = 0.5;
/** Of free disk, half: the run's checkpoints and other people's files go there too. */
const DISK_SHARE = 0.5;
/** Saving less than this part of the whole run is not worth the room. */
const LEAST_SAVED = 0.05;
/** Read from a disk, bytes per second: a slow SSD, or a network's. */
const DISK_SPEED = 200e6;
/** Computed by a fast desktop processor, operations per second. */
const COMPUTE_SPEED = 300e9;

/** Where to keep what the frozen part computes, how much of it, and why. */
export function planPrefixCache(options: PrefixCachePlanOptions): PrefixCachePlan {
  const { mode, frozen = "the frozen part", bytesPerExample, examples, epochs } = options;
  const { savedShare, storedExamples = 0 } = options;
  const off = (why: string): PrefixCachePlan => ({
    mode: "off",
    memoryBytes: 0,
    diskBytes: 0,
    reason: `no output of ${frozen} is kept: ${why}`,
  });
  if (mode === "off") return off("the cache is off");
  if (examples * bytesPerExample === 0) return off("there is none");
  // What is on disk serves later runs too, so that is a reason to ask for it.
  if (epochs <= 1 && storedExamples === 0 && mode !== "disk") return off("each example is needed only once");

  const rooms = roomsOf(options);
  const { memory, disk } = rooms;
  const slow = rooms.diskIsSlow ? "; reading from disk would take longer than computing" : "";
  const fitting = Math.min(examples, Math.floor((memory + disk) / bytesPerExample));
  if (fitting === 0) {
    const room = bytes(rooms.offered);
    return off(`an example takes ${bytes(bytesPerExample)}, and there is room for ${room}${slow}`);
  }
  if (mode === "auto") {
    const computed = 1 - Math.min(storedExamples, examples) / examples; // the first epoch's share that is not there yet
    const saved = ((savedShare * fitting) / examples) * Math.max(0, 1 - computed / epochs);
    const some = fitting < examples ? `there is room for ${fitting} of ${examples} examples${slow}; ` : "";
    if (saved < LEAST_SAVED) return off(`${some}it would save only ${percent(saved)} of the work`);
  }

  const where = [memory > 0 ? "in memory" : [], disk > 0 ? "on disk" : []].flat().join(" and ");
  const whose =
    fitting < examples
      ? `${fitting} of ${examples} examples, ${bytes(fitting * bytesPerExample)}; the others go through it in each epoch${slow}`
      : `${examples} examples, ${bytes(examples * bytesPerExample)}`;
  return {
    mode: memory > 0 && disk > 0 ? "memory+disk" : memory > 0 ? "memory" : "disk",
    memoryBytes: memory,
    diskBytes: disk,
    reason: `each example goes through ${frozen} once and the result is kept ${where}: ${bytes(bytesPerExample)} for each of ${whose}`,
  };
}

type Rooms = {
  readonly memory: number;
  readonly disk: number;
  /** The larger of the two, even if it is less than an example. */
  readonly offered: number;
  /** Whether the disk was passed over for that. */
  readonly diskIsSlow: boolean;
};

/** Bytes that memory and disk may hold; zero for what is not used. */
function roomsOf(options: PrefixCachePlanOptions): Rooms {
  const { mode, bytesPerExample, examples, freeMemory, freeDisk = 0, maxBytes = Infinity } = options;
  const { savedFlops, savedSeconds = savedFlops / COMPUTE_SPEED, storedExamples = 0 } = options;
  const total = bytesPerExample * examples;
  // Who names both a place and a size has decided how much to leave to others.
  const named = mode !== "auto" && maxBytes < Infinity;
  const room = (free: number, share: number, taken = 0): number =>
    Math.floor(Math.min(maxBytes, taken + Math.max(0, named ? free : free * share)));
  const offeredMemory = mode === "disk" ? 0 : room(freeMemory, MEMORY_SHARE);
  const offeredDisk = mode === "memory" ? 0 : room(freeDisk, DISK_SHARE, storedExamples * bytesPerExample);

  const atLeastOne = (bytes: number): number => (bytes < bytesPerExample ? 0 : bytes);
  const diskIsSlow = mode === "auto" && bytesPerExample / DISK_SPEED >= savedSeconds;
  const offered = Math.max(offeredMemory, diskIsSlow ? 0 : offeredDisk);
  const memory = atLeastOne(offeredMemory);
  const disk = diskIsSlow ? 0 : atLeastOne(offeredDisk);
  if (memory >= total && (storedExamples === 0 || disk === 0))
    return { memory, disk: 0, offered, diskIsSlow };
  if (disk >= total) return { memory: 0, disk, offered, diskIsSlow };
  return { memory, disk: atLeastOne(Math.min(disk, maxBytes - memory)), offered, diskIsSlow };
}

/** As "2.4 MB". */
function bytes(n: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let size = n;
  for (; size >= 999.5 && unit < units.length - 1; unit++) size /= 1000;
  return `${unit === 0 || size >= 9.95 ? size.toFixed(0) : size.toFixed(1)} ${units[unit]}`;
}

const percent = (share: number): string => `${Number((100 * share).toPrecision(2))} %`;

export { decodeExample, encodeExample } from "./encoding.ts";
export { MemoryStore, type MemoryStoreOptions } from "./memory-store.ts";
export { TieredStore } from "./tiered-store.ts";
export type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "./types.ts";

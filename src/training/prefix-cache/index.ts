export { decodeExample, encodeExample } from "./encoding.ts";
export { exampleKey, type PrefixKeyOptions, prefixKey, type WeightDigests } from "./keys.ts";
export { MemoryStore, type MemoryStoreOptions } from "./memory-store.ts";
export {
  type PrefixCacheMode,
  type PrefixCachePlan,
  type PrefixCachePlanOptions,
  planPrefixCache,
} from "./plan.ts";
export type { Prefix } from "./prefix.ts";
export { PrefixCache, type PrefixCacheOptions } from "./prefix-cache.ts";
export type { PrefixCacheReport, PrefixCacheSettings } from "./stores.ts";
export { TieredStore } from "./tiered-store.ts";
export type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "./types.ts";

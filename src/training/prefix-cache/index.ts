export { decodeExample, encodeExample } from "./encoding.ts";
export { KeptValues } from "./kept-values.ts";
export { exampleKey, type PrefixKeyOptions, prefixKey, type WeightDigests } from "./keys.ts";
export { MemoryStore, type MemoryStoreOptions } from "./memory-store.ts";
export {
  type PrefixCacheMode,
  type PrefixCachePlan,
  type PrefixCachePlanOptions,
  planPrefixCache,
} from "./plan.ts";
export {
  PrefixCache,
  type PrefixCacheReport,
  type PrefixCacheSettings,
} from "./prefix-cache.ts";
export { TieredStore } from "./tiered-store.ts";
export type { KeptDType, KeptExample, PrefixStats, PrefixStore } from "./types.ts";

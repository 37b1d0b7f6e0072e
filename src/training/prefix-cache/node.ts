export { isThere, removeIfEmpty, removeStale } from "./disk-files/node.ts";
export { DiskStore, type DiskStoreOptions } from "./disk-store/node.ts";
export { freeDisk, freeMemory } from "./free-space/node.ts";

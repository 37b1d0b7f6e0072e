export { findLists, type NumberedList, type Position } from "./lists.ts";
export { type Block, type Place, Structure } from "./structure.ts";
export { structureOf } from "./structure-of.ts";

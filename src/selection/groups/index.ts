export { type CompiledSelection, compileSelection } from "./compile.ts";
export { type Entry, type EntryKind, parseEntry } from "./entry.ts";
export type {
  CompiledEntry,
  CompiledGroup,
  GroupedSelection,
  GroupSpec,
  GroupWarning,
  LayersSpec,
  LayerValue,
} from "./spec.ts";

/** What a model consists of, from its files' headers alone. */
export { readModuleTree } from "./read-module-tree.ts";
export type {
  Inspection,
  InspectionOptions,
  InspectionWarning,
  StoredDtype,
  StoredWeights,
} from "./types.ts";

import type { ModuleKind, ModuleTree } from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";

const adaptable: ReadonlySet<ModuleKind> = new Set([
  "linear",
  "conv1d_hf",
  "conv1d",
  "conv2d",
  "conv3d",
  "embedding",
  "mha",
]);

export const skeleton = (name: string): ModuleTree => findSkeleton(name, import.meta.filename);

/** Modules that can carry LoRA: not those that Mamba's kernels read directly. */
export const adaptableNames = (tree: ModuleTree): string[] =>
  tree.modules
    .filter(({ kind }) => adaptable.has(kind))
    .map(({ name }) => name)
    .filter((name) => tree.modelType !== "mamba" || !/\.(?:conv1d|out_proj)$/.test(name));

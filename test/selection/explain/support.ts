import { join } from "node:path";
import type { ModuleInfo, ModuleTree } from "../../../src/selection/index.ts";
import { findSkeleton } from "../../conformance/vector-files.ts";

export const vectors = join(import.meta.dirname, "../../vectors");

export const skeleton = (name: string): ModuleTree =>
  findSkeleton(name, join(vectors, "selection/x.json.gz"));

/** A tree of the given modules; those between are added. A kind is told by its class. */
export function makeTree(
  leaves: readonly (readonly [name: string, className: string])[],
  modelType = "custom",
): ModuleTree {
  const modules = new Map<string, ModuleInfo>();
  const add = (name: string, className: string): void => {
    if (modules.has(name)) return;
    const dot = name.lastIndexOf(".");
    if (name !== "") add(dot === -1 ? "" : name.slice(0, dot), "Module");
    const kind = className === "Linear" ? "linear" : className === "Norm" ? "norm" : "module";
    const size = kind === "linear" ? 8 : null;
    const parameters: ModuleInfo["parameters"] = size === null ? [] : [["weight", [size, size]]];
    modules.set(name, { name, className, kind, in: size, out: size, parameters });
  };
  for (const [name, className] of leaves) add(name, className);
  // parents before children, siblings in the order in which they were given
  const order = [...modules.values()];
  const sorted: ModuleInfo[] = [];
  const visit = (parent: string): void => {
    for (const module of order) {
      const { name } = module;
      if (name === "" || name.slice(0, Math.max(0, name.lastIndexOf("."))) !== parent) continue;
      sorted.push(module);
      visit(name);
    }
  };
  sorted.push(modules.get("")!);
  visit("");
  return {
    name: modelType,
    modelType,
    className: "Model",
    config: { modelType, tieWordEmbeddings: false },
    modules: sorted,
    inputEmbeddings: null,
    outputEmbeddings: null,
    seqClsHeads: [],
    tiedWeights: [],
    tiedWithEmbedding: [],
    duplicateModules: [],
    numParameters: 0,
    isPretrainedModel: true,
  };
}

/** A hybrid of Mamba, attention and MLP layers, as Nemotron-H: `pattern` has a letter per layer, M, * or -. */
export const makeHybrid = (pattern: string): ModuleTree =>
  makeTree(
    [...pattern].flatMap((letter, layer) => {
      const parts = { M: ["in_proj", "x_proj"], "*": ["q_proj", "v_proj"], "-": ["up_proj", "down_proj"] }[
        letter
      ]!;
      return parts.map((part) => [`backbone.layers.${layer}.mixer.${part}`, "Linear"] as const);
    }),
  );

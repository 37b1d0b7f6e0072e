import { basename, join } from "node:path";
import { type ModuleInfo, type ModuleTree, parseSkeleton } from "../../../src/selection/index.ts";
import type { TensorInfo } from "../../../src/selection/infer/index.ts";
import { readVectors, vectorFiles } from "../../conformance/vector-files.ts";

type Row = [name: string, shape: number[], dtype: string];
type Entry = { name: string; skeleton?: unknown; checkpoint: Row[]; full_config: Record<string, unknown> };

/** A model of which both are known: what save_pretrained writes, and the modules that loading it gives. */
export type Known = {
  readonly name: string;
  readonly truth: ModuleTree;
  /** The file's tensors, by name, as writers of safetensors sort them. */
  readonly checkpoint: readonly TensorInfo[];
  /** The state dict, in the order of registration. */
  readonly stateDict: readonly TensorInfo[];
  readonly config: Record<string, unknown>;
};

const vectors = join(import.meta.dirname, "../../vectors");
const tensor = ([name, shape, dtype]: Row): TensorInfo => ({ name, shape, dtype });

export function knownModels(): Known[] {
  const { models } = readVectors(join(vectors, "infer/models.json.gz")) as { models: Entry[] };
  const recorded = new Set(models.map(({ name }) => name));
  const others = vectorFiles(join(vectors, "skeletons"))
    .map((file) => basename(file, ".json.gz"))
    .filter((name) => !recorded.has(name))
    .map((name): Entry => ({ name, checkpoint: [], full_config: {} }));
  return [...models, ...others].map(({ name, skeleton, checkpoint, full_config: config }) => {
    const json = (skeleton ?? readVectors(join(vectors, "skeletons", `${name}.json.gz`))) as {
      state_dict?: Row[];
      config: Record<string, unknown>;
      class: string;
    };
    return {
      name,
      truth: parseSkeleton(json),
      checkpoint: checkpoint.map(tensor),
      stateDict: (json.state_dict ?? []).map(tensor),
      config: { ...json.config, architectures: [json.class], ...config },
    };
  });
}

/** Modules that hold tensors: all that a header can tell of. */
export const withParameters = ({ modules }: ModuleTree): ModuleInfo[] =>
  modules.filter(({ parameters, name }) => name !== "" && parameters.length > 0);

/** What selection needs to know of a module, in one string. */
export const gist = ({ name, kind, in: inputs, out, parameters, extra }: ModuleInfo): string => {
  const own = parameters.map(([parameter, shape]) => `${parameter}[${shape}]`).sort();
  const groups = extra?.groups ?? 1;
  return `${name} ${kind} ${inputs}→${out} ${own} /${groups} ${[extra?.kernelSize ?? []].flat()}`;
};

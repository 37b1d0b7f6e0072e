import type { OlderLayout } from "../nn/index.ts";
import type { ModuleInfo, ModuleTree, NamedShape } from "../selection/tree.ts";

const made = new WeakMap<ModuleTree, ModuleTree>();

/** A model's modules as its older class has them. */
export function olderTree(tree: ModuleTree, layout: OlderLayout): ModuleTree {
  const known = made.get(tree);
  if (known) return known;
  const { buffers, ...listed } = layout.modules(tree.modules, {
    tied: tree.config.tieWordEmbeddings !== false,
    stateDict: tree.stateDict ?? [],
  });
  // kinds are those of the native modules, or "module"
  const modules = listed.modules as readonly ModuleInfo[];
  const older = (path: string): string => layout.toOlder(path) ?? path;
  const result: ModuleTree = {
    ...tree,
    ...listed,
    modules,
    tiedWeights: tree.tiedWeights.map(([path, first]) => [older(path), older(first)]),
    ...(tree.stateDict && { stateDict: savedTensors(modules, buffers) }),
  };
  made.set(tree, result);
  return result;
}

/** Parameters, then buffers, module by module: as torch saves them. */
const savedTensors = (
  modules: readonly ModuleInfo[],
  buffers: ReadonlyMap<string, readonly NamedShape[]>,
): NamedShape[] =>
  modules.flatMap(({ name, parameters }) =>
    [...parameters, ...(buffers.get(name) ?? [])].map(
      ([segment, shape]): NamedShape => [name === "" ? segment : `${name}.${segment}`, shape],
    ),
  );

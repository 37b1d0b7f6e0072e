import type { ModuleInfo, ModuleTree } from "../tree.ts";

/**
 * The tree as it is executed with `layerReplication`: for each range `[start, end)` those layers once more, under new
 * numbers. Their weights are shared, so only names and work grow.
 * @param ranges as a selection accepted them.
 */
export function replicatedTree(tree: ModuleTree, ranges: readonly (readonly [number, number])[]): ModuleTree {
  const list = stackOf(new Set(tree.modules.map(({ name }) => name)));
  const layers: ModuleInfo[][] = [];
  const before: ModuleInfo[] = [];
  const after: ModuleInfo[] = [];
  for (const module of tree.modules) {
    const { name } = module;
    const index = name.startsWith(`${list}.`) ? Number.parseInt(name.slice(list.length + 1), 10) : undefined;
    if (index === undefined) (layers.length === 0 ? before : after).push(module);
    else if (layers[index] === undefined) layers[index] = [module];
    else layers[index].push(module);
  }
  const copies = ranges
    .flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i))
    .flatMap((source, target) => {
      const original = layers.at(source)!;
      const old = original[0]!.name.length;
      return original.map((module) => ({ ...module, name: `${list}.${target}${module.name.slice(old)}` }));
    });
  return { ...tree, modules: [...before, ...copies, ...after] };
}

/** Where PEFT looks for the layers. Source: PEFT 0.21 `replicate_layers`. */
function stackOf(names: ReadonlySet<string>): string {
  const join = (path: string, part: string): string => (path === "" ? part : `${path}.${part}`);
  let model = "";
  while (names.has(join(model, "model"))) model = join(model, "model");
  if (names.has(join(model, "bert"))) model = join(model, "bert");
  const found = ["layers", "encoder.layer", "h"].find((list) => names.has(join(model, list)));
  return join(model, found ?? "layers");
}

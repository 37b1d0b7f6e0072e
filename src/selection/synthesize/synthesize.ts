import { Warnings } from "../failure.ts";
import { allLinearNames } from "../peft/all-linear.ts";
import { resolveConfig } from "../peft/config.ts";
import { headsByTaskType } from "../peft/defaults.ts";
import { LiveTree, listingOf } from "../peft/live-tree.ts";
import { makeMatcher } from "../peft/match.ts";
import { isTruthy, type ResolvedConfig, type SelectionConfig } from "../peft/options.ts";
import { Patterns } from "../peft/patterns.ts";
import { describeReason } from "../peft/reason.ts";
import { replicateLayers } from "../peft/replicate.ts";
import { selectTargets } from "../peft/select.ts";
import type { Target } from "../peft/target.ts";
import { namedModules } from "../peft/traverse.ts";
import { leafOf } from "../python.ts";
import type { ModuleKind, ModuleTree } from "../tree.ts";
import { candidatesFor, lastResorts, type Problem } from "./forms.ts";
import { type Places, placesOf } from "./places.ts";
import { Attempt, notExpressible, some } from "./proof.ts";
import type { Synthesis } from "./synthesis.ts";
import { checkWanted, type RankAndAlpha, renamedLeaves } from "./wanted.ts";

export type SynthesizeOptions = {
  /**
   * All other fields of the configuration; they are kept, and the proof is run with them. Its `targetModules`,
   * `layersToTransform` and `layersPattern` are replaced, entries may be added to its `excludeModules`, and where ranks
   * are wanted, `r`, `loraAlpha`, `rankPattern` and `alphaPattern` are replaced too.
   */
  readonly base?: SelectionConfig;
};

/**
 * The shortest plain PEFT configuration that selects exactly the wanted modules, and gives them the wanted ranks and
 * alphas. Lists of names come before lists limited to layers, before one regex; each is tried on the PEFT engine until
 * one is exact.
 *
 *     synthesize(tree, ["model.layers.14.self_attn.q_proj", "model.layers.15.self_attn.q_proj"]).config
 *     // { targetModules: ["q_proj"], layersToTransform: [14, 15] }
 *
 * @param wanted names of modules; as a map, with the rank and alpha of each.
 * @throws SelectionError `unknown-module` or `unsupported-module` with all such names, `not-expressible` where PEFT has
 * no configuration for the set.
 */
export function synthesize(
  tree: ModuleTree,
  wanted: Iterable<string> | ReadonlyMap<string, RankAndAlpha>,
  { base = {} }: SynthesizeOptions = {},
): Synthesis {
  const ranks = wanted instanceof Map ? (wanted as ReadonlyMap<string, RankAndAlpha>) : undefined;
  const names = new Set(ranks === undefined ? (wanted as Iterable<string>) : ranks.keys());
  const { targetModules: _, layersToTransform: __, layersPattern: ___, ...kept } = base;
  const effective = replicated(tree, kept);
  const places = placesOf(effective);
  checkWanted(effective, places, names);
  const problem = pose(effective, places, names, kept);
  const parameters = parametersOf(tree, kept);
  const attempt = new Attempt(tree, places, names, ranks, parameters, kept);
  if (names.size === 0) return attempt.nothing();
  for (const candidate of candidatesFor(problem)) {
    const result = attempt.run(candidate);
    if (result !== undefined) return result;
  }
  for (const candidate of lastResorts(problem)) {
    const result = attempt.run(candidate);
    if (result !== undefined) return result;
  }
  throw attempt.failure();
}

/** The tree that PEFT walks: with `layerReplication` it is another one. */
function replicated(tree: ModuleTree, { layerReplication }: SelectionConfig): ModuleTree {
  if (!layerReplication || layerReplication.length === 0) return tree;
  const { root } = new LiveTree(tree);
  replicateLayers(root, layerReplication);
  const listing = listingOf(namedModules(root, { duplicates: false }));
  const modules = listing.names.map((name, i) => ({
    name,
    className: listing.moduleAt(i).className,
    kind: listing.kindAt(i) as ModuleKind,
    in: null,
    out: null,
    parameters: [],
  }));
  return { ...tree, modules };
}

function pose(tree: ModuleTree, places: Places, wanted: ReadonlySet<string>, base: SelectionConfig): Problem {
  const config = resolveConfig({ ...base, targetModules: [] }, new Warnings());
  const isExcluded = exclusionOf(config);
  const renamed = renamedLeaves(tree);
  const obstacles = new Map<string, string[]>();
  for (const name of wanted) {
    const reason =
      isExcluded(name) ??
      (renamed?.has(leafOf(name))
        ? `PEFT takes "${leafOf(name)}" for stacked parameters in every model of type "${tree.modelType}"`
        : undefined);
    if (reason === undefined) continue;
    const names = obstacles.get(reason);
    if (names === undefined) obstacles.set(reason, [name]);
    else names.push(name);
  }
  if (obstacles.size > 0)
    throw notExpressible(
      [...obstacles].map(([reason, names]) => `${some(names)}: ${reason}`),
      { modules: [...obstacles.values()].flat() },
    );
  const names = tree.modules
    .map(({ name }) => name)
    .filter((name) => name !== "" && isExcluded(name) === undefined);
  const listing = {
    names: tree.modules.map(({ name }) => name),
    kindAt: (index: number) => tree.modules[index]!.kind,
  };
  const linear = allLinearNames(listing, tree, config);
  for (const name of linear) if (isExcluded(name) !== undefined) linear.delete(name);
  return {
    places,
    shapes: places.shapesOf(names, wanted),
    wanted,
    others: names.filter((name) => !wanted.has(name)),
    linear,
    excluded: base.excludeModules ?? null,
    allowsRegex: renamed === undefined,
  };
}

/** Why the rest of a configuration keeps a module from being a target. */
function exclusionOf(config: ResolvedConfig): (name: string) => string | undefined {
  const heads = config.taskType === "SEQ_CLS" ? headsByTaskType["SEQ_CLS"]! : [];
  if (heads.length > 0) config.modulesToSave = [...(config.modulesToSave ?? []), ...heads];
  if (!isTruthy(config.excludeModules) && !isTruthy(config.modulesToSave as string[] | null))
    return () => undefined;
  const match = makeMatcher(config, new Patterns(new Warnings()));
  return (name) => {
    const result = match(name);
    return result.status === "excluded" ? describeReason(result, config) : undefined;
  };
}

/** What `targetParameters` adapts, whatever the modules are. */
function parametersOf(tree: ModuleTree, base: SelectionConfig): readonly Target[] {
  if (!isTruthy(base.targetParameters ?? null)) return [];
  return selectTargets(tree, { ...base, targetModules: [] }).targetParameters;
}

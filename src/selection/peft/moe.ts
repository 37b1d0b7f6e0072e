import { failure, quoteNames } from "../failure.ts";
import { leafOf, parentOf } from "../python.ts";
import type { ModuleTree } from "../tree.ts";
import { allLinearNames, isAllLinear } from "./all-linear.ts";
import { type MoeRenames, moeRenames } from "./defaults.ts";
import type { LiveModule } from "./live.ts";
import type { Listing } from "./live-tree.ts";
import { makeMatcher } from "./match.ts";
import { isTruthy, type ResolvedConfig } from "./options.ts";
import type { Patterns } from "./patterns.ts";
import { namedParameters } from "./traverse.ts";

/**
 * Mixtures of experts whose per-expert projections are stacked parameters today: names of the old projections in
 * `targetModules` become `targetParameters`, and fused pairs get twice the rank and alpha. Other models stay as they
 * are. A regex becomes a set of last name parts, so it loses whatever it said about layers.
 * @returns the moved targets and the parameters that they became; null where the model type has no renames, or a regex
 * stands for nothing.
 * @throws SelectionError `half-of-fused-pair` if only one of two fused projections is targeted.
 * Source: PEFT 0.21 `utils/transformers_weight_conversion.py`, `_convert_peft_config_moe`.
 */
export function renameExperts(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  modules: Listing,
  patterns: Patterns,
): ReadonlyMap<string, string> | null {
  if (!Object.hasOwn(moeRenames, tree.modelType)) return null;
  const renames = moeRenames[tree.modelType]!;
  if (typeof config.targetModules === "string") {
    const leaves = resolveString(config, tree, root, modules, patterns, renames);
    if (leaves.size === 0) return null;
    config.targetModules = leaves;
  }
  config.rankPattern ??= new Map();
  config.alphaPattern ??= new Map();
  const parameters = new Set(isTruthy(config.targetParameters) ? config.targetParameters! : []);
  const remaining = new Set<string>();
  const found = new Map<string, Set<string>>();
  const moved = new Map<string, string>();
  for (const target of config.targetModules ?? []) {
    const old = Object.keys(renames.map).find((name) => target === name || target.endsWith(`.${name}`));
    if (old === undefined) {
      remaining.add(target);
      continue;
    }
    const renamed = renames.map[old]!;
    parameters.add(renamed);
    moved.set(target, renamed);
    if (renamed in renames.fused) found.set(renamed, (found.get(renamed) ?? new Set()).add(old));
  }
  for (const [renamed, parts] of Object.entries(renames.fused)) {
    const present = found.get(renamed)?.size ?? 0;
    if (present > 0 && present < parts.length) throw halfOfPair(renamed, parts, found.get(renamed)!);
    if (present !== parts.length) continue;
    const key = `.*\\.${renamed}`;
    config.rankPattern.set(key, config.r * parts.length);
    config.alphaPattern.set(key, config.loraAlpha * parts.length);
  }
  config.targetParameters = parameters;
  config.targetModules = remaining;
  return moved;
}

/** The last name parts that a regex or "all-linear" stands for, old projection names included. */
function resolveString(
  config: ResolvedConfig,
  tree: ModuleTree,
  root: LiveModule,
  modules: Listing,
  patterns: Patterns,
  { map }: MoeRenames,
): Set<string> {
  if (isAllLinear(config.targetModules))
    return new Set([...[...allLinearNames(modules, tree, config)].map(leafOf), ...Object.keys(map)]);
  const matcher = makeMatcher(config, patterns);
  const matches = (name: string): boolean => matcher(name).status === "matched";
  const parameters = namedParameters(root).map(([name]) => name);
  const leaves = new Set<string>();
  for (const name of modules.names) if (matches(name)) leaves.add(leafOf(name));
  for (const name of parameters) if (matches(name)) leaves.add(leafOf(name));
  const containers = new Map<string, Set<string>>();
  for (const name of parameters) {
    const leaf = leafOf(name);
    containers.set(leaf, (containers.get(leaf) ?? new Set()).add(parentOf(name)));
  }
  for (const [old, renamed] of Object.entries(map))
    if (!leaves.has(old) && [...(containers.get(renamed) ?? [])].some((name) => matches(`${name}.${old}`)))
      leaves.add(old);
  return leaves;
}

function halfOfPair(renamed: string, parts: readonly string[], present: ReadonlySet<string>) {
  const missing = parts.filter((part) => !present.has(part));
  return failure(
    "inject",
    "ValueError",
    "half-of-fused-pair",
    `targetModules names ${quoteNames(present)} without ${quoteNames(missing)}, but this model holds them fused in ` +
      `${renamed}. Name both, or neither.`,
    { present: [...present], missing, fusedInto: renamed },
  );
}

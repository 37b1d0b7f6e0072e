import { SelectionError } from "../../errors.ts";
import type { SelectionConfig } from "../peft/options.ts";
import { selectTargets } from "../peft/select.ts";
import type { Selection } from "../peft/selection.ts";
import { type Deeper, type Form, Synthesis, synthesize } from "../synthesize/index.ts";
import type { ModuleTree } from "../tree.ts";
import { parseEntry } from "./entry.ts";
import { type Rank, resolveGroups } from "./resolve.ts";
import type { CompiledGroup, GroupedSelection, GroupSpec, GroupWarning } from "./spec.ts";

/** Groups as one configuration of PEFT. */
export type CompiledSelection = {
  /** PEFT's fields only; PEFT selects by it exactly what the groups take. */
  readonly config: SelectionConfig;
  /** What the PEFT engine selects by `config`: the proof. */
  readonly selection: Selection;
  readonly groups: readonly CompiledGroup[];
  /** How `config` says it. */
  readonly form: Form;
  /** What `config` takes of a model of this kind with more layers. Found out when first read. */
  readonly deeper: Deeper;
  readonly warnings: readonly GroupWarning[];
};

/**
 * Compiles a selection of groups to a configuration that PEFT reads, and that selects the same modules with the same
 * ranks on this model. Everything else of the selection (bias, modulesToSave, …) is in the configuration unchanged.
 *
 *     const { config } = compileSelection(tree, {
 *       groups: [
 *         { targetModules: ["q_proj", "v_proj"], layers: { "encoder.layers": "-2:", "decoder.layers": "all" } },
 *         { targetModules: ["vision_tower.**.qkv"], layers: "last 25%", r: 16, loraAlpha: 32 },
 *       ],
 *     });
 *
 * @throws SelectionError for everything that is wrong with the groups (`details.problems`), if they take no module, or
 * if no configuration of PEFT can express them.
 */
export function compileSelection(tree: ModuleTree, spec: GroupedSelection): CompiledSelection {
  const { groups, wanted, warnings } = resolveGroups(tree, spec);
  const base = baseOf(spec);
  const synthesis = asGiven(tree, spec, base, wanted) ?? synthesize(tree, wanted, { base });
  const { config, selection, form } = synthesis;
  return {
    config,
    selection,
    groups,
    form,
    warnings,
    get deeper() {
      return synthesis.deeper;
    },
  };
}

/** Everything that groups do not say. */
function baseOf(spec: GroupedSelection): SelectionConfig {
  const {
    groups: _groups,
    targetModules: _targets,
    excludeModules: _excluded,
    layersToTransform: _layers,
    layersPattern: _pattern,
    layerReplication: _replication,
    rankPattern: _ranks,
    alphaPattern: _alphas,
    ...base
  } = spec;
  return base;
}

/** The group's own words, where they are PEFT's words and mean the same to it. */
function asGiven(
  tree: ModuleTree,
  spec: GroupedSelection,
  base: SelectionConfig,
  wanted: ReadonlyMap<string, Rank>,
): Synthesis | undefined {
  const [group, ...others] = spec.groups;
  if (others.length > 0 || group === undefined || (group.layers !== undefined && group.layers !== null))
    return undefined;
  const targetModules = plainEntries(group.targetModules);
  const excluded = [...entriesOf(group.excludeModules), ...entriesOf(spec.excludeModules)];
  const excludeModules = excluded.length === 0 ? null : plainEntries(excluded);
  if (targetModules === undefined || excludeModules === undefined) return undefined;
  const { r, loraAlpha } = group;
  const { rankPattern, alphaPattern } = spec;
  const config: SelectionConfig = {
    ...base,
    targetModules,
    ...(excludeModules === null ? {} : { excludeModules }),
    ...(r === undefined ? (rankPattern == null ? {} : { rankPattern }) : { r }),
    ...(loraAlpha === undefined ? (alphaPattern == null ? {} : { alphaPattern }) : { loraAlpha }),
  };
  let selection: Selection;
  try {
    selection = selectTargets(tree, config);
  } catch (error) {
    // PEFT stops at a container where groups pass it by
    if (error instanceof SelectionError) return undefined;
    throw error;
  }
  const isSame =
    selection.targets.length === wanted.size &&
    selection.targets.every(({ name, r, alpha }) => {
      const rank = wanted.get(name);
      return rank !== undefined && rank.r === r && rank.alpha === alpha;
    });
  const form =
    typeof targetModules !== "string" ? "list" : targetModules === "all-linear" ? "all-linear" : "regex";
  return isSame ? new Synthesis(tree, config, form, selection) : undefined;
}

const entriesOf = (names: GroupSpec["targetModules"] | null): readonly string[] =>
  names === undefined || names === null ? [] : typeof names === "string" ? [names] : [...names];

/** Entries as PEFT takes them: names only, one regex alone, or all-linear; else undefined. */
function plainEntries(names: GroupSpec["targetModules"]): string | string[] | undefined {
  const entries = entriesOf(names).map(parseEntry);
  const [first] = entries;
  if (first === undefined || entries.some(({ isNegative }) => isNegative)) return undefined;
  if (entries.every(({ kind }) => kind === "name")) return entries.map(({ body }) => body);
  if (entries.length > 1 || first.kind === "glob") return undefined;
  return first.kind === "regex" ? first.body : "all-linear";
}

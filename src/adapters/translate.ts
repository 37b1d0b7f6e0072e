import { AdapterError, listProblems } from "../errors.ts";
import type { OlderLayout } from "../nn/index.ts";
import {
  type ModuleTree,
  type Selection,
  type SelectionConfig,
  type Synthesis,
  selectTargets,
  synthesize,
} from "../selection/index.ts";
import type { LoraConfig, LoraConfigOptions } from "./config.ts";
import { olderTree } from "./older-tree.ts";

/** A configuration under the names of another layout. */
export type TranslatedConfig = {
  readonly config: LoraConfig;
  /** What it selects there: the same modules, with the same ranks and alphas. */
  readonly selection: Selection;
  /** Whether it means the same on a model with more layers. */
  readonly deeper: Synthesis["deeper"];
  /** What the configuration that was given selects. */
  readonly original: Selection;
};

/**
 * The configuration that selects in the older class's modules what `config` selects in the native ones: the shortest one
 * for PEFT, proved on that tree.
 * @throws SelectionError where `config` selects nothing, or there is no such configuration.
 * @throws AdapterError `no-older-name` listing modules that have none, `not-translatable` for options that name something
 * other than modules.
 */
export const toOlderConfig = (config: LoraConfig, tree: ModuleTree, layout: OlderLayout): TranslatedConfig =>
  translate(config, { from: tree, to: olderTree(tree, layout), layout, isNative: true });

/**
 * The configuration that selects in the native modules what `config` selects in those of the older class.
 * @throws as `toOlderConfig`; `no-native-name` for modules that are only there.
 */
export const toNativeConfig = (config: LoraConfig, tree: ModuleTree, layout: OlderLayout): TranslatedConfig =>
  translate(config, { from: olderTree(tree, layout), to: tree, layout, isNative: false });

type Direction = {
  readonly from: ModuleTree;
  readonly to: ModuleTree;
  readonly layout: OlderLayout;
  /** Whether `config` has the native names. */
  readonly isNative: boolean;
};

function translate(config: LoraConfig, { from, to, layout, isNative }: Direction): TranslatedConfig {
  refuseUntranslatable(config, layout);
  const original = selectTargets(from, config.toSelection());
  const modules = new Set(to.modules.map(({ name }) => name));
  const without: string[] = [];
  const renamed = (name: string): string => {
    const other = isNative ? layout.toOlder(name) : layout.toNative(name);
    if (other !== undefined && modules.has(other)) return other;
    without.push(name);
    return name;
  };
  const wanted = new Map(original.targets.map(({ name, r, alpha }) => [renamed(name), { r, alpha }]));
  const modulesToSave = config.modulesToSave === null ? null : original.modulesToSave.map(renamed);
  const { trainableTokenIndices: tokens } = config;
  const trainableTokenIndices =
    tokens === null || isList(tokens) ? tokens : renamedTokens(tokens, original, renamed);
  if (without.length > 0) throw nameless(without, layout, isNative);
  const kept = { modulesToSave, trainableTokenIndices };
  const { excludeModules: _, ...rest } = config.toSelection();
  const base = { ...rest, ...kept } as SelectionConfig;
  const synthesis = synthesize(to, wanted, { base });
  const { selection } = synthesis;
  const saved = new Set(selection.modulesToSave);
  if (modulesToSave?.some((name) => !saved.has(name)) || saved.size !== (modulesToSave?.length ?? 0))
    throw new AdapterError(
      `modulesToSave ${JSON.stringify(modulesToSave)} takes other modules under the other names: ${listProblems([...saved])}. Name single layers.`,
      { code: "not-translatable", details: { fields: ["modulesToSave"] } },
    );
  return {
    config: config.with({ ...plain(synthesis.config, config), ...(kept as LoraConfigOptions) }),
    selection,
    original,
    get deeper() {
      return synthesis.deeper;
    },
  };
}

const isList = (value: object): value is readonly unknown[] => Array.isArray(value);

/** Every option that says which modules, and how, so that none of the former ones is left. */
const plain = (config: SelectionConfig, { r, loraAlpha }: LoraConfig): LoraConfigOptions =>
  ({
    targetModules: config.targetModules ?? null,
    excludeModules: config.excludeModules ?? null,
    layersToTransform: config.layersToTransform ?? null,
    layersPattern: config.layersPattern ?? null,
    rankPattern: config.rankPattern ?? {},
    alphaPattern: config.alphaPattern ?? {},
    r: config.r ?? r,
    loraAlpha: config.loraAlpha ?? loraAlpha,
  }) as LoraConfigOptions;

/** Token rows by the name of their embedding, of which a tail may have been given. */
function renamedTokens(
  tokens: Readonly<Record<string, readonly number[]>>,
  { tokenModules }: Selection,
  renamed: (name: string) => string,
): Record<string, number[]> {
  const entries = Object.entries(tokens);
  return Object.fromEntries(
    tokenModules.flatMap((name) => {
      const rows = entries.find(([given]) => name === given || name.endsWith(`.${given}`))?.[1];
      return rows === undefined ? [] : [[renamed(name), [...rows]]];
    }),
  );
}

function refuseUntranslatable(config: LoraConfig, { naming }: OlderLayout): void {
  const fields = (["targetParameters", "layerReplication"] as const).filter(
    (field) => (config[field]?.length ?? 0) > 0,
  );
  if (fields.length === 0) return;
  throw new AdapterError(
    `${fields.join(" and ")} cannot be brought from one naming ("native", ${JSON.stringify(naming)}) into the other. Leave ${fields.length > 1 ? "them" : "it"} out, or name layers with targetModules.`,
    { code: "not-translatable", details: { fields } },
  );
}

function nameless(names: readonly string[], layout: OlderLayout, isNative: boolean): AdapterError {
  const shown = names.map((name) => {
    const why = isNative ? layout.whyNot(name) : undefined;
    return `"${name}"${why === undefined ? "" : ` (${why})`}`;
  });
  return new AdapterError(
    isNative
      ? `These modules have no name in ${layout.owner}, so that an adapter of them cannot be said or saved for it: ${listProblems(shown)}. Leave them out, or keep the native names.`
      : `These modules of ${layout.owner} have no counterpart here: ${listProblems(shown)}. Name single layers.`,
    { code: isNative ? "no-older-name" : "no-native-name", details: { names, naming: layout.naming } },
  );
}
